"""Checks of a cluster in its first hour: what is measured on its ranks, how it is judged, and the report."""

__all__ = ["cases", "check", "judge", "measure", "place", "records", "reporting", "setup", "table"]
