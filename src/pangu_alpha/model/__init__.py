"""The network as MindSpore cells: mathematics only, nothing of plans, files or time."""

__all__ = ["cache", "chip", "initialization", "layers", "mask", "operators", "pangu"]
