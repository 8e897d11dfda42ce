"""The inputs of checks as data, which measuring and judging share: operators, plans, runs. No MindSpore."""

__all__ = ["operators", "overflow", "plans", "reshard"]
