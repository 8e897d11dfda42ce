"""Searches the best plan of a model on a cluster, explains it and writes what launches it."""
