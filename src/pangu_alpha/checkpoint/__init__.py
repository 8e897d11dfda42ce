"""Checkpoints that describe themselves, are complete or absent, and report which bytes are damaged.

Needs no MindSpore.
"""

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
