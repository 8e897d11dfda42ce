"""The options of check-cluster, which are the launcher's where both have them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pangu_alpha.cli.launch.options import add_nodes, add_timeouts, check_nodes
from pangu_alpha.cli.options import (
    Differs,
    add_options,
    add_rack_option,
    nonnegative_number,
    positive,
    user_path,
    words,
)
from pangu_alpha.cli.parser import Parser
from pangu_alpha.cluster_check.table import CHECKS
from pangu_alpha.config.run import RunConfig
from pangu_alpha.files.shown import quoted, shown

_PATHS = {"compare": 2, "report": 1}  # commands that run nothing, and how many folders each takes
_MEASUREMENTS = sum(len(check.measurements) for check in CHECKS)  # each takes a port of its own
_MOST_PORT = 65535
_DIFFERENCE = 0.1  # of two figures of reports that are compared

_EPILOG = """\
checks: {checks}

exit code: 0 all checks that ran passed; 1 one did not; 2 wrong options, or no such devices; 128 + n after a
signal n. The same command continues: checks that have passed are not repeated. See docs/first_hour.md.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the words of the command line.

    Returns:
        The options, with `command`, "run", "compare" or "report", and `folders`, those that it names.

    Raises:
        ValueError: Words or options do not fit together.
    """
    options = _parser().parse_args(arguments)
    options.command, *folders = options.words or ["run"]
    options.folders = [user_path(each) for each in folders]
    if options.command != "run":
        if options.command not in _PATHS:
            raise ValueError(f"{quoted(options.command)} is no command; there are compare and report")
        if len(folders) != _PATHS[options.command]:
            raise ValueError(
                "write `compare ONE OTHER` with two folders of results, or `report DIR` with one"
            )
        return options
    if options.out is None or folders:
        raise ValueError("--out: name the folder of the results, such as --out first_hour, and no other word")
    if (options.released is None) != (options.text is None):
        lacking = "--released" if options.released is None else "--text"
        raise ValueError(f"{lacking}: a released network and a text are compared together; name both")
    for option, path in (("--released", options.released), ("--text", options.text)):
        if path is not None and not Path(path).exists():
            raise ValueError(f"{option}: {shown(path)}: there is no such file or folder")
    options.start = "msrun" if options.rank_table is None else "rank-table"
    check_nodes(options)
    if options.master_port + _MEASUREMENTS > _MOST_PORT:
        raise ValueError(
            f"--master-port: every measurement takes the next port; give one below "
            f"{_MOST_PORT - _MEASUREMENTS}"
        )
    return options


def _parser() -> Parser:
    parser = Parser(
        prog="check-cluster",
        usage="%(prog)s --out DIR [options], %(prog)s compare ONE OTHER, or %(prog)s report DIR",
        description="Checks, measures and calibrates the devices of a cluster; start it on every node.",
        epilog=_EPILOG.format(checks=", ".join(check.name for check in CHECKS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="COMMAND", help="compare ONE OTHER: what differs between two folders of "
        "results, or two report.json; report DIR: write a folder's report anew")  # fmt: skip
    add("--out", type=user_path, metavar="DIR", help="folder of the results; with several nodes on storage "
        "that all share")  # fmt: skip
    add("--only", type=words, metavar="NAMES", help="run these checks alone, with commas between their names")
    add("--anonymous", action="store_true", help="replace host names, addresses and home folders in the "
        "report, so that it can be sent to others")  # fmt: skip
    add("--dry", action="store_true", help="print the checks and how long they usually take; run nothing")
    add("--released", type=user_path, metavar="DIR", help="a released network, such as the 2.6B, or any "
        "checkpoint, with its vocab.model: how it predicts a text is compared with the CPU")  # fmt: skip
    add("--text", type=user_path, metavar="FILE", help="the text for --released, in UTF-8; its first 1,024 "
        "tokens are taken")  # fmt: skip
    add("--share", type=nonnegative_number, default=_DIFFERENCE, metavar="X", help="compare: name figures "
        f"that differ by more than this share (default: {_DIFFERENCE})")  # fmt: skip
    _add_nodes(parser)
    add_timeouts(parser.add_argument_group("environment"))
    return parser


def _add_nodes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("devices and nodes")
    add_options(group, RunConfig, device=Differs(shown="Ascend", default="Ascend"))
    add = group.add_argument
    add("--nproc", type=positive, metavar="N", help="ranks of a node (default: its NPUs, or on CPU its "
        "cores, but at most 8)")  # fmt: skip
    add_nodes(group, "free port of node 0; every measurement takes the next one")
    add_rack_option(group)
    add("--cluster", metavar="FAMILY", help="shipped numbers to compare with, such as 910b (default: those "
        "of --chip)")  # fmt: skip
