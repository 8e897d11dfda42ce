"""The options of check-cluster, which are the launcher's where both have them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

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

COMMANDS = ("run", "compare", "report")
_MEASUREMENTS = sum(len(check.measurements) for check in CHECKS)  # each takes a port of its own
_MOST_PORT = 65535
_DIFFERENCE = 0.1  # of two figures of reports that are compared

_EPILOG = """\
commands: run, which is also what happens without one; compare ONE OTHER; report DIR
checks: {checks}

exit code: 0 all checks that ran passed; 1 one did not; 2 wrong options, or no such devices; 128 + n after a
signal n. The same command continues: checks that have passed are not repeated. See docs/first_hour.md.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the words of the command line; without a command they are those of `run`.

    Raises:
        ValueError: Options exclude each other.
    """
    given = bool(arguments) and arguments[0] in COMMANDS
    options = _parser().parse_args([*arguments] if given else ["run", *arguments])
    if options.command == "run":
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
        description="Checks, measures and calibrates the devices of a cluster.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands)
    compare = commands.add_parser("compare", help="what differs between two reports")
    for name in ("one", "other"):
        compare.add_argument(name, type=user_path, metavar="DIR", help="folder of --out, or its report.json")
    compare.add_argument("--share", type=nonnegative_number, default=_DIFFERENCE, metavar="X",
                         help="name figures that differ by more than this share "
                         f"(default: {_DIFFERENCE})")  # fmt: skip
    report = commands.add_parser("report", help="write the report of a folder of results anew")
    report.add_argument("folder", type=user_path, metavar="DIR", help="folder of --out")
    _add_anonymous(report)
    return parser


def _add_run(commands: argparse._SubParsersAction) -> None:
    run = commands.add_parser(
        "run",
        help="check this node's devices, or those of several nodes (the default)",
        description="Runs all checks one after another; start it on every node.",
        epilog=_EPILOG.format(checks=", ".join(check.name for check in CHECKS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("--out", required=True, type=user_path, metavar="DIR", help="folder of the results; "
                     "with several nodes on storage that all share")  # fmt: skip
    run.add_argument("--only", type=words, metavar="NAMES", help="run these checks alone, with commas "
                     "between their names")  # fmt: skip
    _add_anonymous(run)
    nodes = run.add_argument_group("devices and nodes")
    add_options(nodes, RunConfig, device=Differs(shown="Ascend", default="Ascend"))
    nodes.add_argument("--nproc", type=positive, metavar="N", help="ranks of a node (default: its NPUs, or "
                       "on CPU its cores, but at most 8)")  # fmt: skip
    add_nodes(nodes, "free port of node 0; every measurement takes the next one")
    add_rack_option(nodes)
    nodes.add_argument("--cluster", metavar="FAMILY", help="shipped numbers to compare with, such "
                       "as 910b (default: those of --chip)")  # fmt: skip
    add_timeouts(run.add_argument_group("environment"))
    run.add_argument("--dry", action="store_true", help="print the checks and how long they usually "
                     "take; run nothing")  # fmt: skip


def _add_anonymous(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--anonymous", action="store_true", help="replace host names, addresses and "
                        "home folders in the report, so that it can be sent to others")  # fmt: skip
