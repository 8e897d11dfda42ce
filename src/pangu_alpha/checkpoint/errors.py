"""The errors that every part of this package raises for a checkpoint that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class CheckpointError(ValueError):
    """A checkpoint cannot be written, read or used; the message names file and tensor and says what to do."""


class UnclearError(CheckpointError):
    """Nothing is known to be damaged, but the files and options do not suffice to open the checkpoint."""


def refuse(where: Path, what: str, problems: Sequence[str], most: int = 20) -> None:
    """Raises an error that lists the problems, or does nothing if there are none.

    Raises:
        CheckpointError: There are problems.
    """
    if problems:
        rest = [f"and {len(problems) - most} more"] if len(problems) > most else []
        raise CheckpointError("\n  - ".join([f"{where}: {what}:", *problems[:most], *rest]))
