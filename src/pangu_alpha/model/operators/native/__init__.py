"""Operators by C++ kernels of our own, for processors of x86-64; plain.py defines what they compute.

library.py compiles the sources once for each machine; training.py has the cells.
"""

from pangu_alpha.model.operators.native import library, training

__all__ = ["library", "training"]
