"""The peak rate of the devices, for a run's utilisation."""

from __future__ import annotations

import time

import numpy as np

from pangu_alpha.config.precision import MatmulPrecision


def peak_flops(
    peak_tflops: float | None, device: str, devices: int, precision: MatmulPrecision = "highest"
) -> float | None:
    """Peak of all devices in operations per second: as given, or measured on CPU; None if unknown.

    Args:
        peak_tflops: Peak of one device as given. Unit: 10^12 operations per second.
        device: "CPU" or "Ascend".
        devices: Number of devices.
        precision: Of the products that are measured.
    """
    if peak_tflops is not None:
        return peak_tflops * 1e12 * devices
    return _measured_cpu_peak(precision) * devices if device == "CPU" else None


def _measured_cpu_peak(precision: MatmulPrecision, size: int = 2048, rounds: int = 5) -> float:
    """The best of a few products of square float32 matrices, in operations per second."""
    from mindspore import Tensor, ops

    from pangu_alpha.model.operators.native.training import linear

    matrix = Tensor(np.ones((size, size), np.float32))
    matmul = ops.MatMul() if precision == "highest" else linear(precision)
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        matmul(matrix, matrix).asnumpy()
        seconds.append(time.perf_counter() - began)
    return 2.0 * size**3 / min(seconds)
