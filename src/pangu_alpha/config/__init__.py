"""Frozen dataclasses for every choice a user can make; knows no MindSpore."""

__all__ = [
    "data",
    "families",
    "generate",
    "model",
    "operator_table",
    "optim",
    "parallel",
    "run",
    "schema",
    "zoo",
]
