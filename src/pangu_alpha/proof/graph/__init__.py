"""Reads and rewrites the graphs that MindSpore's partitioner made for a rank."""
