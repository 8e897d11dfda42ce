"""Replays whole training runs of a plan on CPU processes."""

__all__ = ["engine", "legs", "replay", "small_run"]
