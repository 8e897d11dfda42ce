"""The peak rate of the devices, for a run's utilisation."""

from __future__ import annotations

import time

import numpy as np


def peak_flops(peak_tflops: float | None, device: str, devices: int) -> float | None:
    """Peak of all devices in operations per second: as given, or measured on CPU; None if unknown.

    Args:
        peak_tflops: Peak of one device as given. Unit: 10^12 operations per second.
        device: "CPU" or "Ascend".
        devices: Number of devices.
    """
    if peak_tflops is not None:
        return peak_tflops * 1e12 * devices
    return _measured_cpu_peak() * devices if device == "CPU" else None


def _measured_cpu_peak(size: int = 2048, rounds: int = 5) -> float:
    """The best of a few float32 products of square matrices in MindSpore, in operations per second."""
    from mindspore import Tensor, ops

    matrix = Tensor(np.ones((size, size), np.float32))
    matmul = ops.MatMul()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        matmul(matrix, matrix).asnumpy()
        seconds.append(time.perf_counter() - began)
    return 2.0 * size**3 / min(seconds)
