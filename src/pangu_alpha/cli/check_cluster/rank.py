"""One process of a measurement: `rank.py OUT CHECK MEASUREMENT FOLDER DEVICE [RANK]`, started by `running`.

DEVICE is CPU, Ascend or "-" for none. A process without RANK joins all others first and gets its rank there.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

with suppress(ValueError):
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))  # its modules would hide others of their name

from pangu_alpha.cli import run_main
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.records import write_record
from pangu_alpha.cluster_check.setup import Setup


def main(words: Sequence[str]) -> int:
    """Measures, and writes this rank's record.

    Raises:
        ValueError: The device cannot be used, or the ranks do not come together.
    """
    out, check, measurement, folder, device, *rank = words
    os.chdir(folder)  # MindSpore leaves files of graphs that fail where it works
    place = _place(Path(out), Path(folder), measurement, device.strip("-"), rank)
    module = importlib.import_module(f"pangu_alpha.cluster_check.measure.{check}")
    began = time.monotonic()
    values = module.measure(place)
    write_record(Path(folder), place.rank, {"seconds": time.monotonic() - began, **values})
    if place.world is not None:
        place.world.gather(
            np.zeros(1, np.float32)
        )  # a worker that leaves early closes the connections of the others
    return 0


def _place(out: Path, folder: Path, measurement: str, device: str, rank: Sequence[str]) -> Place:
    setup = Setup.load(out)
    if device:
        from pangu_alpha.parallel.context import use_device

        use_device(device)
    if rank:
        return Place(measurement, device, int(rank[0]), out, folder, setup)
    from pangu_alpha.config.parallel import ParallelPlan
    from pangu_alpha.parallel.world import join_world

    world = join_world(ParallelPlan(dp=setup.size), device)
    return Place(measurement, device, world.rank, out, folder, setup, world)


if __name__ == "__main__":
    run_main(main)
