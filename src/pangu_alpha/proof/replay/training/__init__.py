"""Whole training runs of a plan, replayed on CPU processes."""

__all__ = ["legs", "replay", "small_run"]
