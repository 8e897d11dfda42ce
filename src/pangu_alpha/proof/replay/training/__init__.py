"""Replays whole training runs of a plan on CPU processes."""

__all__ = ["legs", "replay", "small_run"]
