"""Searches the best plan of a model on a cluster, explains it and writes what launches it."""

__all__ = ["closest_questions", "draw", "explain", "launching", "placing", "search"]
