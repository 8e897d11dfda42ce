"""Predicts what a step of a plan costs in seconds and bytes, and searches for the fastest plan."""

__all__ = ["calibration", "cost", "operators", "search", "text_tables"]
