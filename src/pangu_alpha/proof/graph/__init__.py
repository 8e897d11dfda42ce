"""Reads and rewrites the graphs that MindSpore's partitioner made for a rank."""

__all__ = ["alike", "fusion", "inline", "liveness", "mindir", "private", "rewrite"]
