"""Compares what was measured with what must hold. Knows records only: no device, no MindSpore."""

__all__ = [
    "dropout",
    "environment",
    "links",
    "models",
    "npu_smi",
    "operators",
    "overlap",
    "planner",
    "plans",
    "runs",
    "speed",
    "startup",
    "world",
]
