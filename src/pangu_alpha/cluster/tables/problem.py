"""What is said of a broken rank table: where, what, and what to do; names of servers and devices in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pangu_alpha.files.shown import quoted, shown


@dataclass(frozen=True)
class Problem:
    """One broken rule.

    Args:
        where: "the table", or the server and, where it is one, the device.
        what: What stands there, and the rule it breaks.
        remedy: What to do about it.
    """

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return shown(f"{self.where}: {self.what}; {self.remedy}")


_SHOWN = 50  # problems that an error lists


class RankTableError(ValueError):
    """A rank table that breaks rules.

    Args:
        path: The file, or what the table is called.
        problems: All of them.
    """

    def __init__(self, path: object, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        number = f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)}"
        lines = [f"{path}: {number}:", *map(str, self.problems[:_SHOWN])]
        if len(self.problems) > _SHOWN:
            lines.append(f"and {len(self.problems) - _SHOWN} more; rank_table.py check lists all")
        super().__init__("\n  - ".join(lines))


def plain_id(name: object) -> str:
    """An id as it stands in a message."""
    return quoted(name)[1:-1] if isinstance(name, str) else quoted(name)


def server_name(server: Any, number: int) -> str:
    name = server.get("server_id") if isinstance(server, Mapping) else None
    return f"server {plain_id(name)}" if name else f"server number {number + 1}"


def device_name(device: Any, place: int) -> str:
    name = device.get("device_id") if isinstance(device, Mapping) else None
    return f"device {plain_id(name)}" if name is not None else f"device number {place + 1}"


def ranges(numbers: Iterable[int]) -> str:
    """Numbers in short: "0-3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
