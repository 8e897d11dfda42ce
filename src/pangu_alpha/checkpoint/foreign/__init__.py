"""Reads and writes the checkpoints of other programs without those programs."""

__all__ = ["mindspore", "torch"]
