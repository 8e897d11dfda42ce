"""Finds the ranks' files that do not belong to the others: what several hold alike is compared by samples."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

_SAMPLE = 4096  # bytes of a tensor that tell it from that of another save


class Replica(NamedTuple):
    """A rank's own copy of a slice.

    Args:
        file: Where.
        extents: Offset and length of its bytes in the file, in order. Unit: bytes.
    """

    file: Path
    extents: Sequence[tuple[int, int]]

    def sample(self) -> bytes:
        """Its first bytes."""
        offset, length = self.extents[0]
        with open(self.file, "rb", buffering=0) as opened:
            return os.pread(opened.fileno(), min(length, _SAMPLE), offset)


def strangers(groups: Iterable[tuple[str, Sequence[Replica]]]) -> list[str]:
    """A sentence for every file with a tensor that is not, bit for bit, that of most others.

    Args:
        groups: A tensor's name, and those that should be equal; a name may come several times.

    Raises:
        OSError: A file cannot be read.
    """
    found: dict[Path, str] = {}
    for name, replicas in groups:
        samples = [each.sample() for each in replicas]
        usual = Counter(samples).most_common(1)[0][0]  # of as many each, the first rank's
        for each, sample in zip(replicas, samples, strict=True):
            if sample != usual:
                found.setdefault(each.file, f"{each.file}: its {name} is not the others'")
    return [f"{sentence}: of another save or model?" for sentence in found.values()]
