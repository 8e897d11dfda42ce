"""Names of the folders of a run's checkpoints: how they are written, and what tells them from all others.

A number has at least so many digits, and more where it needs them; a name that is not written so is nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_STEP = re.compile(r"step_([0-9]{8,18})")
_PART = re.compile(r"rank_([0-9]{5,18})")
_ASIDE = re.compile(r"(?P<name>.+)\.aside-[0-9]+")


def step_name(step: int) -> str:
    """Folder of a step's checkpoint."""
    return f"step_{step:08d}"


def step_of(name: str) -> int | None:
    """The step of a checkpoint's folder; None for any other name, such as one with zeros too many."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match and step_name(int(match[1])) == name else None


def part_name(rank: int) -> str:
    """Folder of a rank's part in that of the step."""
    return f"rank_{rank:05d}"


def rank_of(name: str) -> int | None:
    """The rank of a part's folder; None for any other name."""
    match = _PART.fullmatch(name)
    return int(match[1]) if match and part_name(int(match[1])) == name else None


def replaced_name(name: str) -> str | None:
    """Of the folder of a step that was set aside, the name it had; None for any other name."""
    match = _ASIDE.fullmatch(name)
    return match["name"] if match and step_of(match["name"]) is not None else None


def newest_first(names: Iterable[str]) -> list[str]:
    """Names of steps by their numbers; other names come last."""

    def place(name: str) -> tuple[int, str]:
        step = step_of(name)
        return (-1 if step is None else step), name

    return sorted(names, key=place, reverse=True)
