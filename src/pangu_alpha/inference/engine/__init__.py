"""Generates for requests that come and go: which row computes what, and when. Ids only, and no MindSpore."""

__all__ = ["prefixes", "requests", "row_decoder", "runs", "scheduler", "scores", "waiting"]
