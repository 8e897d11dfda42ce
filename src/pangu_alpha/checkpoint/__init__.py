"""Checkpoints that describe themselves, are whole or absent, and say which byte is wrong; no MindSpore."""

__all__ = [
    "foreign",
    "frozen",
    "moving",
    "naming",
    "native",
    "open",
    "open_options",
    "summary",
    "tensors",
    "vocabulary",
]
