"""Whether a released network predicts a text on the device as on CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pangu_alpha.cluster_check.check import Evidence, Finding


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields, for every type, how far perplexity and -log p of single tokens are from those of the CPU."""
    cpu, device = evidence.one("cpu"), evidence.one("device")
    expected = cpu["types"]["float32"]
    same = cpu["tokens"] == device["tokens"]
    number = len(expected["nats"])
    yield Finding("tokens of the text", number, "at least 1, the same on both", same and number > 0)
    yield Finding("types", ", ".join(device["types"]) or "none", "at least one", bool(device["types"]))
    yield Finding("CPU: perplexity", expected["perplexity"])
    for dtype, found in device["types"].items():
        yield from _against(evidence, dtype, found, expected)


def _against(
    evidence: Evidence, dtype: str, found: Mapping[str, Any], expected: Mapping[str, Any]
) -> Iterator[Finding]:
    yield Finding(f"{dtype}: perplexity", _number(found["perplexity"]))
    relative = abs(_number(found["perplexity"]) / expected["perplexity"] - 1.0)
    what = f"{dtype}: perplexity against the CPU's, relative"
    yield evidence.at_most(what, relative, f"{dtype} perplexity")
    farthest = _farthest(found["nats"], expected["nats"])
    what = f"{dtype}: -log p of a token against the CPU's, nats"
    yield evidence.at_most(what, farthest, f"{dtype} nats")
    answers = {prompt: each["nats"] for prompt, each in expected["answers"].items()}
    far = [_farthest(found["answers"][prompt]["nats"], nats) for prompt, nats in answers.items()]
    farthest = max(far) if all(each == each for each in far) else float("nan")
    what = f"{dtype}: -log p of the prompts' answers against the CPU's, nats"
    yield evidence.at_most(what, farthest, f"{dtype} nats")
    for prompt in answers:
        places = [each["answers"][prompt] for each in (found, expected)]
        words = ["chosen" if each["likeliest"] else "not chosen" for each in places]
        yield Finding(f"{dtype}: answer to {prompt}", f"{words[0]}, on CPU {words[1]}")


def _farthest(found: list[float | None], expected: list[float]) -> float:
    """Largest difference; NaN if a number is missing."""
    if len(found) != len(expected) or not expected:
        return float("nan")
    far = [abs(_number(one) - other) for one, other in zip(found, expected, strict=True)]
    return max(far) if all(each == each for each in far) else float("nan")


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
