"""Searches for the best way to split each operator of a transformer block over a group of devices."""

__all__ = ["draw", "found_table", "patterns", "strategies", "verify"]
