"""Fits the cost model's constants to measured steps: published ones, and those of the user's own runs."""

__all__ = ["calibrate", "measured_runs", "published"]
