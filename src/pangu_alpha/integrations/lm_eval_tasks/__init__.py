"""The tasks of the catalogue for lm-evaluation-harness: a YAML file with each one's name, and their class."""

from pathlib import Path

FOLDER = Path(__file__).parent  # for the harness's --include_path

__all__ = ["FOLDER", "catalog_task", "figures"]
