"""Starts the worker processes of a node and watches them."""

__all__ = ["commands", "watch", "workers"]
