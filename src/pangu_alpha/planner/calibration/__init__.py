"""Fits the cost model to measured steps, published ones and the user's own."""

__all__ = ["calibrate", "measured_runs", "published"]
