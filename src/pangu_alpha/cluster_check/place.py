"""Where a process of a measurement runs, as the measuring functions see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pangu_alpha.cluster_check.setup import Setup


class World(Protocol):
    """The ranks that measure together; parallel.world.World is one."""

    rank: int
    size: int

    def gather(self, array: np.ndarray) -> np.ndarray:
        """Returns the arrays of all ranks, by rank."""


@dataclass(frozen=True)
class Place:
    """One process of a measurement.

    Args:
        measurement: Name of the measurement.
        device: Device in use, "CPU" or "Ascend"; "" if there is none.
        rank: Rank of this process among all that are checked.
        out: Folder of the results, which all nodes share.
        folder: Folder of this start, for files of its own.
        world: The ranks that measure together; None unless the measurement joins them.
    """

    measurement: str
    device: str
    rank: int
    out: Path
    folder: Path
    setup: Setup
    world: World | None = None
