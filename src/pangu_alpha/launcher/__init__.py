"""Starts the workers of a node and watches over them."""
