"""Names of the folders in a run's checkpoints, and how they are told from all other names.

A number has a minimum of digits, and more only if it needs them; a name in any other spelling is not ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_STEP = re.compile(r"step_([0-9]{8,18})")
_PART = re.compile(r"rank_([0-9]{5,18})")
_ASIDE = re.compile(r"(?P<name>.+)\.aside-[0-9]+")


def step_name(step: int) -> str:
    """Returns the name of the folder of a step's checkpoint."""
    return f"step_{step:08d}"


def step_of(name: str) -> int | None:
    """Returns the step of a checkpoint's folder; None for any other name, such as one with too many zeros."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match and step_name(int(match[1])) == name else None


def part_name(rank: int) -> str:
    """Returns the name of a rank's part, a folder inside the step's folder."""
    return f"rank_{rank:05d}"


def rank_of(name: str) -> int | None:
    """Returns the rank of a part's folder, or None for any other name."""
    match = _PART.fullmatch(name)
    return int(match[1]) if match and part_name(int(match[1])) == name else None


def replaced_name(name: str) -> str | None:
    """Returns the former name of a step's folder that was set aside, or None for any other name."""
    match = _ASIDE.fullmatch(name)
    return match["name"] if match and step_of(match["name"]) is not None else None


def newest_first(names: Iterable[str]) -> list[str]:
    """Sorts names of steps by descending step; other names come last."""

    def place(name: str) -> tuple[int, str]:
        step = step_of(name)
        return (-1 if step is None else step), name

    return sorted(names, key=place, reverse=True)
