"""Runs the partitioned graphs of a plan in CPU processes and compares them with one device."""

__all__ = ["continued", "replay", "suite", "training"]
