"""Puts the helpers beside the tests of the pages on the path."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
