"""What the processes of a check compute: a module for each check, with a function
measure(place); see Check.module."""

__all__ = [
    "dropout",
    "environment",
    "links",
    "models",
    "operators",
    "overlap",
    "planner",
    "plans",
    "runs",
    "speed",
    "startup",
    "timed_run",
    "timing",
    "world",
]
