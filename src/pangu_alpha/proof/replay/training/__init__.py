"""Whole training runs of a plan, replayed on CPU processes."""
