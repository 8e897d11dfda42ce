"""CMRC2019: the blanks of a passage are filled together, because no candidate belongs into two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pangu_alpha.evaluation.metrics.choices import one_to_one

_JOINED = ("requests", "nats", "tokens", "greedy")
_SUMMED = ("dropped_shots", "cut_characters")


def passages_of(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Puts the blanks of each passage together, and assigns a candidate of its own to each of them.

    Args:
        lines: Blanks in the order of the file; those of a passage have its name as their group.

    Returns:
        Passages; "prediction" and "gold" have a candidate for each blank.
    """
    by_passage: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_passage.setdefault(line["group"], []).append(line)
    return [_passage(number, name, blanks) for number, (name, blanks) in enumerate(by_passage.items())]


def _passage(number: int, name: str, blanks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = blanks[0]
    return {
        "number": number,
        "id": name,
        "where": first["where"],
        "group": "",
        "doc": {
            "blanks": [[blank["doc"]["before"], blank["doc"]["after"]] for blank in blanks],
            "choices": first["doc"]["choices"],
        },
        "gold": [blank["gold"] for blank in blanks],
        "prediction": one_to_one([blank["scores"] for blank in blanks]),
        "scores": [blank["scores"] for blank in blanks],
        "tied": any(blank["tied"] for blank in blanks),
        "shots": first["shots"],
        **{key: [each for blank in blanks for each in blank[key]] for key in _JOINED},
        **{key: sum(blank[key] for blank in blanks) for key in _SUMMED},
    }
