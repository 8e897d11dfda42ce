"""Operators by C++ kernels of our own, for processors of x86-64; plain.py defines what they compute.

library.py compiles the sources once for each machine, and cores.py counts its processors; training.py has the
cells, inputs.py those of a batch's numbers, fused.py those for a whole block, update.py the optimizer's, and
decoding.py the one that is only for decoding.
"""

from pangu_alpha.model.operators.native import decoding, fused, inputs, library, training, update

__all__ = ["decoding", "fused", "inputs", "library", "training", "update"]
