"""Reads what `npu-smi info` prints: a table with two rows for each device."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The first row has the number of the NPU, its name and its health; the second one the number of the chip, on
# an Atlas A3 also the number of the device (Phy-ID), its address on the bus, and pairs of used and all
# memory, of which the last one is that of the HBM.
_FIRST = re.compile(r"\|\s*(\d+)\s+(\S*[A-Za-z]\S*)\s*\|\s*([A-Za-z]\w*)\s*\|[^|]*\|")
_SECOND = re.compile(r"\|\s*\d+(?:\s+(\d+))?\s*\|\s*[0-9A-Fa-f]+(?::[0-9A-Fa-f]+)+\.\d\s*\|([^|]*)\|")
_PAIR = re.compile(r"(\d+)\s*/\s*(\d+)")
_VERSION = re.compile(r"\bVersion:\s*(\S+)")


@dataclass(frozen=True)
class Npu:
    """A device as npu-smi shows it.

    Args:
        name: Such as "910B2"; an Atlas A3 calls all its devices "Ascend910".
        health: "OK", or the worst alarm, such as "Warning", "Alarm" or "Critical".
        memory: Size of its HBM. Unit: MiB.
        used: Of that, what is in use. Unit: MiB.
    """

    name: str
    health: str
    memory: int
    used: int


def devices_of(text: str) -> dict[int, Npu]:
    """The devices by number, which is that of /dev/davinci; rows that are not understood are left out."""
    found, first = {}, None
    for line in map(str.strip, text.splitlines()):
        if match := _FIRST.fullmatch(line):
            first = match
        elif (match := _SECOND.fullmatch(line)) and first is not None:
            if pairs := _PAIR.findall(match[2]):
                used, memory = map(int, pairs[-1])
                found[int(match[1] or first[1])] = Npu(first[2], first[3], memory, used)
            first = None
    return found


def version_of(text: str) -> str:
    """The version of npu-smi, which comes with the driver; "" if there is none."""
    match = _VERSION.search(text)
    return match[1] if match else ""
