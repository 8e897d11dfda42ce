"""The network as MindSpore cells: mathematics only, nothing of plans, files or time."""
