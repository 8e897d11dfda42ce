"""What the processes of a check compute: a module for each check, with a function measure(place)."""

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
    "timing",
    "training",
    "world",
]
