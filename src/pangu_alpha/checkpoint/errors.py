"""The errors that every part of this package raises for a checkpoint that cannot be used."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint cannot be written, read or used; the message names file and tensor and says what to do."""


class UnclearError(CheckpointError):
    """Nothing is known to be damaged, but the files and options do not suffice to open the checkpoint."""
