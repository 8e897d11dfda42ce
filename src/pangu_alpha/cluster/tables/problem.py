"""Problems of a rank table: place, broken rule and remedy, with short names of servers and devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pangu_alpha.files.shown import quoted, shown


@dataclass(frozen=True)
class Problem:
    """One broken rule.

    Args:
        where: "the table", or the server and, if the problem is a device's, the device.
        what: The value found, and the rule that it breaks.
        remedy: What the user can do about it.
    """

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return shown(f"{self.where}: {self.what}; {self.remedy}")


_SHOWN = 50  # problems that an error lists at most


class RankTableError(ValueError):
    """A rank table breaks rules; the message lists the problems.

    Args:
        path: The file, or another name of the table.
    """

    def __init__(self, path: object, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        number = f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)}"
        lines = [f"{path}: {number}:", *map(str, self.problems[:_SHOWN])]
        if len(self.problems) > _SHOWN:
            lines.append(f"and {len(self.problems) - _SHOWN} more; rank_table.py check lists all")
        super().__init__("\n  - ".join(lines))


def plain_id(name: object) -> str:
    """Returns an id in the form in which messages show it."""
    return quoted(name)[1:-1] if isinstance(name, str) else quoted(name)


def server_name(server: Any, number: int) -> str:
    name = server.get("server_id") if isinstance(server, Mapping) else None
    return f"server {plain_id(name)}" if name else f"server number {number + 1}"


def device_name(device: Any, place: int) -> str:
    name = device.get("device_id") if isinstance(device, Mapping) else None
    return f"device {plain_id(name)}" if name is not None else f"device number {place + 1}"


def ranges(numbers: Iterable[int]) -> str:
    """Returns numbers as short text: "0-3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
