"""Checks during training: the rows that ranks read, and copies of weights that must stay equal."""

__all__ = ["replicas", "rows"]
