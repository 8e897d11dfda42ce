"""Whether the device's operators compute what their definitions say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pangu_alpha.cluster_check.check import Evidence, Finding


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields, by operator and type, the largest difference of outputs and of gradients over all shapes.

    Differences are in units of the tensor's largest number: an output's rounding follows its own size, but
    that of a sum's terms follows theirs.
    """
    plain, device = evidence.one("plain")["operators"], evidence.one("device")["operators"]
    yield _complete(plain, device)
    worst: dict[tuple[str, str, str], float] = defaultdict(float)
    for key, found in device.items():
        name, shape, dtype = key.split(", ")
        reference = plain[f"{name}, {shape}, float32"]
        for kind, value in _differences(found, reference).items():
            worst[name, dtype, kind] = _larger(worst[name, dtype, kind], value)
    for (name, dtype, kind), value in worst.items():
        what = f"{name}, {dtype}: {kind} against the plain operator"
        yield evidence.at_most(what, value, f"{dtype} {kind}")
    yield from _by_numpy(evidence, plain)
    if (status := evidence.one("device")["status"]) is not None:
        seen = status["clean"] == 0.0 and status["overflow"] > 0.0
        yield Finding("float status", str(status), "0 without and more with an overflow", seen)


def _complete(plain: Mapping[str, Any], device: Mapping[str, Any]) -> Finding:
    """Whether the device computed every operator in every shape, in at least one type."""
    wanted, found = ({key.rpartition(", ")[0] for key in keys} for keys in (plain, device))
    missing = sorted(wanted - found)
    text = f"{missing[0]} and {len(missing) - 1} more are missing" if missing else len(found)
    return Finding("operators and shapes compared", text, "all, at least 1", bool(found) and not missing)


def _differences(found: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
    pairs = zip(found["samples"], reference["samples"], reference["scales"], strict=True)
    output, *gradients = [_relative(one, other, scale) for one, other, scale in pairs]
    return {"output": output, **({"gradient": float(np.max(gradients))} if gradients else {})}


def _relative(found: Sequence[float], expected: Sequence[float], scale: float) -> float:
    """Largest difference over the scale; inf where a number is missing because it was not finite."""
    one, other = np.array(found, np.float64), np.array(expected, np.float64)
    difference = float(np.abs(one - other).max())
    return difference / scale if np.isfinite(difference) else float("inf")


def _larger(one: float, other: float) -> float:
    return max(one, other) if one == one and other == other else float("nan")


def _by_numpy(evidence: Evidence, plain: Mapping[str, Any]) -> Iterator[Finding]:
    """The plain operators against NumPy, so that not both can be wrong alike."""
    for key, found in plain.items():
        if "numpy" not in found:
            continue
        expected = found["numpy"]
        output = _relative(found["samples"][0], expected["sample"], found["scales"][0])
        yield evidence.at_most(f"{key}: plain operator against NumPy, output", output, "numpy output")
        if not expected["slopes"]:
            continue
        scale = max(map(abs, expected["slopes"]))
        slope = _relative(found["slopes"], expected["slopes"], scale)
        yield evidence.at_most(f"{key}: plain operator against NumPy, derivative", slope, "numpy slope")
