"""Searches for the fastest plan of a model on a cluster, explains it and tells how to launch it."""

__all__ = ["closest_questions", "draw", "explain", "launching", "placing", "search"]
