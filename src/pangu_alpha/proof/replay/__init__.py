"""Runs the partitioned graphs of a plan in CPU processes and compares them with one device."""

__all__ = ["compare", "continued", "reference_optimizer", "replay", "rows", "suite", "training", "worker"]
