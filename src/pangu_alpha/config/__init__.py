"""Frozen dataclasses for every choice a user can make; knows no MindSpore."""

__all__ = [
    "data",
    "families",
    "generate",
    "model",
    "model_families",
    "operator_table",
    "optim",
    "parallel",
    "run",
    "schema",
    "zoo",
]
