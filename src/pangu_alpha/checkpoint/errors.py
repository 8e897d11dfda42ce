"""What every part of this package raises for a checkpoint that cannot be used."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, read or used: which file, which tensor, what to do."""


class UnclearError(CheckpointError):
    """Nothing is known to be damaged: what it is, or what is said of it, does not suffice to open it."""
