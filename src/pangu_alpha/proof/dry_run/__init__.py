"""Compiles a plan by MindSpore's Ascend partitioner on a CPU machine, and reports on its graphs."""
