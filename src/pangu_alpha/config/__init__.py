"""Frozen dataclasses for every choice a user can make; knows no MindSpore."""

__all__ = ["data", "families", "generate", "model", "optim", "parallel", "plan_file", "run", "schema", "zoo"]
