"""Finds files of another save among the ranks' files, by samples of slices that several ranks hold alike."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

_SAMPLE = 4096  # bytes of a tensor that suffice to distinguish two saves


class Replica(NamedTuple):
    """A rank's own copy of a slice.

    Args:
        file: The rank's file.
        extents: Offset and length of its bytes in the file, in order. Unit: bytes.
    """

    file: Path
    extents: Sequence[tuple[int, int]]

    def sample(self) -> bytes:
        """Returns the first bytes of the slice."""
        offset, length = self.extents[0]
        with open(self.file, "rb", buffering=0) as opened:
            return os.pread(opened.fileno(), min(length, _SAMPLE), offset)


def strangers(groups: Iterable[tuple[str, Sequence[Replica]]]) -> list[str]:
    """Returns a sentence for every file with a tensor that is not, bit for bit, that of most others.

    Args:
        groups: A tensor's name, and the copies that should be equal; a name may occur several times.

    Raises:
        OSError: A file cannot be read.
    """
    found: dict[Path, str] = {}
    for name, replicas in groups:
        samples = [each.sample() for each in replicas]
        usual = Counter(samples).most_common(1)[0][0]  # on a tie, the first rank's
        for each, sample in zip(replicas, samples, strict=True):
            if sample != usual:
                found.setdefault(each.file, f"{each.file}: its {name} is not the others'")
    return [f"{sentence}: of another save or model?" for sentence in found.values()]
