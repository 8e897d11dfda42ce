"""The network as MindSpore cells: only the mathematics, nothing of plans, files or time."""

__all__ = [
    "cache",
    "chip",
    "fused_network",
    "graph",
    "initialization",
    "layers",
    "mask",
    "operators",
    "pangu",
]
