"""Compares what was measured with what must hold. Knows records only: no device, no MindSpore."""

__all__ = [
    "decoding",
    "dropout",
    "environment",
    "links",
    "network",
    "operators",
    "overlap",
    "parallel",
    "planner",
    "plans",
    "speed",
    "startup",
    "training",
    "world",
]
