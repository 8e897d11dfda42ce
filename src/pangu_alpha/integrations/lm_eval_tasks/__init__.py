"""Tasks for lm-evaluation-harness: YAML files for it, and the loader that they name."""

from pathlib import Path

FOLDER = Path(__file__).parent  # for the harness's --include_path

__all__ = ["FOLDER", "fewclue"]
