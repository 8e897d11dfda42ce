"""Frozen dataclasses for every choice a user can make; knows no MindSpore."""

__all__ = [
    "corpus",
    "data",
    "families",
    "generate",
    "keys",
    "model",
    "model_families",
    "operator_table",
    "optim",
    "option",
    "parallel",
    "run",
    "scored_tasks",
    "serve",
    "schema",
    "zoo",
]
