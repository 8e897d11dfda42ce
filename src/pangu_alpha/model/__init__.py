"""The network as MindSpore cells: mathematics only; no rank, no plan, no path."""
