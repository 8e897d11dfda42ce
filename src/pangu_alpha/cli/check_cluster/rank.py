"""One process of a measurement, started by `running`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

with suppress(ValueError):
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))  # its modules would hide others of their name

from pangu_alpha.cli import run_main
from pangu_alpha.cli.options import natural, user_path
from pangu_alpha.cli.parser import Parser
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.records import write_record
from pangu_alpha.cluster_check.setup import Setup
from pangu_alpha.cluster_check.table import CHECKS, named


def main(words: Sequence[str]) -> int:
    """Measures, and writes this rank's record.

    Raises:
        ValueError: The device cannot be used, or the ranks do not come together.
    """
    options = _parser().parse_args(words)
    os.chdir(options.folder)  # MindSpore leaves files of graphs that fail where it works
    place = _place(options)
    (check,) = named((options.check,))
    module = importlib.import_module(check.module)
    began = time.monotonic()
    values = module.measure(place)
    write_record(options.folder, place.rank, {"seconds": time.monotonic() - began, **values})
    if place.world is not None:
        place.world.gather(
            np.zeros(1, np.float32)
        )  # a worker that leaves early closes the connections of the others
    return 0


def _parser() -> Parser:
    parser = Parser(prog="rank.py", description="One process of a measurement of check-cluster.")
    add = parser.add_argument
    add("out", type=user_path, metavar="OUT", help="folder of the results")
    add("check", choices=[check.name for check in CHECKS], metavar="CHECK", help="name of the check")
    add("measurement", metavar="MEASUREMENT", help="name of the check's measurement")
    add("folder", type=user_path, metavar="FOLDER", help="where the record is written")
    add("device", choices=("CPU", "Ascend", "none"), metavar="DEVICE", help="CPU, Ascend or none")
    add("rank", nargs="?", type=natural, metavar="RANK", help="rank of this process; without it, it joins "
        "all others and gets its rank there")  # fmt: skip
    return parser


def _place(options: argparse.Namespace) -> Place:
    setup, device = Setup.load(options.out), options.device if options.device != "none" else ""
    if device:
        from pangu_alpha.parallel.context import use_device

        use_device(device)
    if options.rank is not None:
        return Place(options.measurement, device, options.rank, options.out, options.folder, setup)
    from pangu_alpha.config.parallel import ParallelPlan
    from pangu_alpha.parallel.world import join_world

    world = join_world(ParallelPlan(dp=setup.size), device)
    return Place(options.measurement, device, world.rank, options.out, options.folder, setup, world)


if __name__ == "__main__":
    run_main(main)
