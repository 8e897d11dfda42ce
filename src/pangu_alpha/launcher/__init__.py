"""Starts the workers of a node and watches over them."""

__all__ = ["commands", "watch", "workers"]
