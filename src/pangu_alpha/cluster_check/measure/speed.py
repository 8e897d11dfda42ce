"""How fast one device multiplies matrices and moves its memory, by size."""

from __future__ import annotations

import time
from typing import Any

import mindspore as ms
import numpy as np
import psutil
from mindspore import Tensor, ops

from pangu_alpha.cluster_check.measure.timing import seconds_of
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.config.model import ComputeType, ModelConfig
from pangu_alpha.model.operators import operators_for

PRODUCTS = {"CPU": (256, 512, 1024, 2048), "Ascend": (512, 1024, 2048, 4096, 8192, 16384)}  # rows and columns
COPIES = {
    "CPU": (1 << 20, 1 << 23, 1 << 25),
    "Ascend": (1 << 20, 1 << 24, 1 << 28, 1 << 30),
}  # bytes of a tensor
_REPEATS, _LEAST = 5, 0.02


def measure(place: Place) -> dict[str, Any]:
    """Returns seconds of products by size, of sums of two tensors by bytes, and of a first call.

    A product of size n is [n, n] by [n, n] and does 2 n^3 operations; a sum of tensors of b bytes moves 3 b.
    """
    dtype: ComputeType = "float16" if place.device == "Ascend" else "float32"
    product = product_of(dtype)
    began = time.perf_counter()
    tiny = _ones((16, 16), dtype)
    product(tiny, tiny).asnumpy()
    first = time.perf_counter() - began
    return {
        "dtype": dtype,
        "first_call": first,
        "products": {str(size): _product(product, size, dtype) for size in PRODUCTS[place.device]},
        "copies": {str(size): _copy(size) for size in COPIES[place.device]},
        "nothing": min(seconds_of(lambda: ops.Add()(tiny, tiny), _REPEATS, _LEAST)),
        "host_memory": psutil.virtual_memory().total,
    }


def product_of(dtype: ComputeType) -> Any:
    """The cell that multiplies two matrices, as the network's linear layers do it."""
    config = ModelConfig(64, 8, 2, 2, seq_length=16, dropout=0.0, compute_dtype=dtype)
    return operators_for(config).linear()


def _product(product: Any, size: int, dtype: str) -> float:
    one, other = _ones((size, size), dtype), _ones((size, size), dtype)
    return min(seconds_of(lambda: product(one, other), _REPEATS, _LEAST))


def _copy(size: int) -> float:
    one, other, add = _ones((size // 4,), "float32"), _ones((size // 4,), "float32"), ops.Add()
    return min(seconds_of(lambda: add(one, other), _REPEATS, _LEAST))


def _ones(shape: tuple[int, ...], dtype: str) -> Tensor:
    return Tensor(np.ones(shape, np.float32)).astype(getattr(ms, dtype))
