"""What the tests of the corpus share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

TOYS = str(Path(__file__).parent / "toys")
sys.path.append(TOYS)  # worker processes, which inherit it, import the items of the tests by name


@pytest.fixture
def toys_for_executors(monkeypatch):
    """Lets Spark's Python processes import the items of the tests, too."""
    paths = [TOYS, *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
