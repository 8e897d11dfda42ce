"""Exponential and logarithm from additions, multiplications and divisions alone.

numpy chooses its own versions by the processor, and those of the C library differ between releases, in the
last bits. A score that decides whether a document is kept must be the same everywhere.
"""

from __future__ import annotations

import math

import numpy as np

_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42fee00000p-1"), float.fromhex("0x1.a39ef35793c76p-33")
_LN2 = float.fromhex("0x1.62e42fefa39efp-1")
_ROOT_HALF = math.sqrt(0.5)  # correctly rounded, as IEEE 754 demands
_EXP_TERMS = [1 / math.factorial(n) for n in range(13, -1, -1)]
_LOG_TERMS = [1 / n for n in range(23, 0, -2)]
_LARGEST = 700.0


def exp(x: np.ndarray) -> np.ndarray:
    """e^x, float64 [...]; x is cut off at -700 and 700."""
    x = np.clip(np.asarray(x, np.float64), -_LARGEST, _LARGEST)
    power = np.rint(x / _LN2)
    rest = (x - power * _LN2_HIGH) - power * _LN2_LOW
    return np.ldexp(_polynomial(_EXP_TERMS, rest), power.astype(np.int32))


def log(x: np.ndarray) -> np.ndarray:
    """Natural logarithm of positive numbers, float64 [...]."""
    fraction, power = np.frexp(np.asarray(x, np.float64))
    small = fraction < _ROOT_HALF
    fraction, power = np.where(small, fraction * 2, fraction), power - small
    s = (fraction - 1) / (fraction + 1)
    return 2 * s * _polynomial(_LOG_TERMS, s * s) + power * _LN2


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x), float64 [...]."""
    return 1 / (1 + exp(-np.asarray(x, np.float64)))


def _polynomial(terms: list[float], x: np.ndarray) -> np.ndarray:
    value = np.full_like(x, terms[0])
    for term in terms[1:]:
        value = value * x + term
    return value
