"""Compiles a plan with MindSpore's Ascend partitioner on a CPU machine, and reports on its graphs."""

__all__ = ["cann", "compile", "draw", "engine", "job", "links", "report", "strategy_searches"]
