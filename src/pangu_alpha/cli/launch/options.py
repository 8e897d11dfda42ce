"""Defines the launchers' options, and separates them from the words for the program."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from pangu_alpha.cli.options import Differs, add_options, natural, path_text, port, positive
from pangu_alpha.cli.parser import Parser
from pangu_alpha.cluster.chips import CHIPS
from pangu_alpha.config.run import RunConfig
from pangu_alpha.launcher.commands import address_fault
from pangu_alpha.launcher.watch import GRACE

_OF_TRAIN = {  # options of train.py, which the launcher does not have
    "--resume": "run.resume=HOW",
    "--initial": "run.initial=PATH",
    "--init-from": "run.initial=PATH",
}


def parse(words: Sequence[str], program: str) -> tuple[argparse.Namespace, list[str]]:
    """Returns the options of the launcher, and the words left for the program.

    Args:
        program: "train", "predict" or "evaluate".

    Raises:
        ValueError: An option is unknown (the message suggests a similar one), or options exclude each other.
    """
    parser = _parser(program)
    options, rest = parser.parse_known_args(words)
    if program != "train":
        return options, rest  # the program knows its own options
    for word in rest:
        if word.startswith("-") or "=" not in word:
            raise ValueError(f"{word}: unknown; {_hint(word.partition('=')[0], parser)}")
    check_nodes(options)
    if options.master_port + options.restarts > 65535:
        raise ValueError(
            f"--master-port: each restart takes the next port, and {options.master_port} with "
            f"{options.restarts} restarts goes beyond 65535; lower one of them"
        )
    if (options.start == "rank-table") != (options.rank_table is not None):
        raise ValueError("--start rank-table and --rank-table FILE need each other")
    if options.rank_table is None:
        options.nnodes = options.nnodes or 1
    return options, rest


def check_nodes(options: argparse.Namespace) -> None:
    """Refuses options of `add_nodes` that do not fit together."""
    if options.start == "msrun" and (options.nnodes or 1) > 1 and options.master_addr is None:
        raise ValueError(
            f"--master-addr: needed with {options.nnodes} nodes: the address of node 0 that all nodes reach"
        )
    if options.master_addr is not None and (fault := address_fault(options.master_addr)) is not None:
        raise ValueError(f"--master-addr: {fault}")


def _hint(option: str, parser: argparse.ArgumentParser) -> str:
    if option in _OF_TRAIN:
        return f"here it is written {_OF_TRAIN[option]}"
    known = {*re.findall(r"--[a-z-]+", parser.format_help())} - {*_OF_TRAIN}  # which the help mentions too
    near = difflib.get_close_matches(option, sorted(known), 1)
    return f"did you mean {near[0]}?" if near else "options are --words, see --help; the rest key=value"


def _parser(name: str) -> argparse.ArgumentParser:
    trains, called = name == "train", "evaluate.py tasks" if name == "evaluate" else f"{name}.py"
    words = "--config YAML [key=value ...]" if trains else f"[options of {called}]"
    others = "Words key=value go to train.py." if trains else f"Options not listed here go to {called}."
    parser = Parser(
        prog=f"bash run_scripts/{os.environ.get('PANGU_SCRIPT') or f'run_distribute_{name}.sh'}",
        usage=f"%(prog)s [options] {words}",
        description=f"Starts {called} on the devices of a node and watches over it; see docs/launching.md.",
        epilog=others,
    )
    add = parser.add_argument
    if trains:
        add(
            "--config",
            type=path_text,
            required=True,
            metavar="YAML",
            help="the run: sections model, data, run, optim and parallel",
        )
    elif name == "predict":
        add(
            "--prompt-file",
            type=path_text,
            required=True,
            metavar="FILE",
            help="prompts, one a line, shared out evenly",
        )
        add(
            "--output",
            type=path_text,
            required=True,
            metavar="FILE",
            help="JSON lines of all workers, in the prompts' order",
        )
    _add_topology(parser, trains)
    _add_environment(parser)
    return parser


def _add_topology(parser: argparse.ArgumentParser, trains: bool) -> None:
    group = parser.add_argument_group("devices and nodes")
    add = _adder(group)
    needed = "what the plan needs" if trains else "1"
    add_options(group, RunConfig, device=Differs(shown="run.device of the YAML" if trains else "auto"))
    add("--nproc", type=positive, metavar="N", help=f"workers of a node (default: {needed})")
    if not trains:
        parser.set_defaults(restarts=0)
        return
    add_nodes(group, "free port of node 0, and the next for each restart", ", for --start rank-table")
    add("--start", choices=("msrun", "rank-table"), default="msrun", help="how workers find each other")
    add("--restarts", type=natural, default=0, metavar="N", help="attempts after a failure, each from "
        "the newest whole checkpoint")  # fmt: skip
    add(
        "--compile-cache",
        type=path_text,
        metavar="DIR",
        help="keep compiled graphs there (MS_COMPILER_CACHE_*)",
    )


def add_nodes(group: argparse._ArgumentGroup, ports: str, use: str = "") -> None:
    """Adds the options by which several nodes, or a rank table, are named.

    Args:
        ports: Help of --master-port.
        use: End of the help of --rank-table.
    """
    add = _adder(group)
    add(
        "--nnodes",
        type=positive,
        metavar="N",
        help="number of nodes (default: 1, or those of the rank table)",
    )
    add("--node-rank", type=natural, metavar="N", help="place of this node, from 0; needed with several")
    add("--master-addr", metavar="HOST", help="address of node 0 that all nodes reach (msrun); needed with "
        "several")  # fmt: skip
    add(
        "--master-port",
        type=port,
        default=8118,
        metavar="PORT",
        help=ports,
    )
    add("--rank-table", type=path_text, metavar="FILE", help=f"HCCL rank table{use}")
    add("--chip", choices=tuple(CHIPS), help="chip whose rules the rank table must keep; see "
        "docs/rank_tables.md")  # fmt: skip
    add(
        "--cluster-timeout",
        type=positive,
        default=600,
        metavar="S",
        help="seconds that all workers may take to come together (msrun)",
    )


def add_timeouts(group: argparse._ArgumentGroup) -> None:
    """Adds how long HCCL waits, and the binding of cores."""
    add = _adder(group)
    add(
        "--hccl-connect-timeout",
        type=positive,
        default=1200,
        metavar="S",
        help="seconds that devices may take to connect (HCCL_CONNECT_TIMEOUT)",
    )
    add(
        "--hccl-exec-timeout",
        type=positive,
        default=3600,
        metavar="S",
        help="seconds that a collective may wait for all its ranks (HCCL_EXEC_TIMEOUT)",
    )
    add("--bind-cores", action="store_true", help="give every worker its own share of the cores")


def _add_environment(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("environment and logs")
    add = _adder(group)
    add("--log-dir", type=path_text, default="logs", metavar="DIR", help="logs of all attempts; best on "
        "shared storage")  # fmt: skip
    add(
        "--heartbeat",
        type=natural,
        default=30,
        metavar="S",
        help="seconds between two lines that show that a compilation is alive; 0 shows none",
    )
    add("--grace", type=natural, default=GRACE, metavar="S", help="seconds that workers get to save and stop "
        "after SIGTERM, Ctrl-C or a hang-up; a second signal kills them at once")  # fmt: skip
    add_timeouts(group)
    add("--dry", action="store_true", help="print what would run on every node, run nothing")


def _adder(group: argparse._ArgumentGroup) -> Callable[..., None]:
    """Returns a function that adds options to a group, each with its default in the help."""

    def add(name: str, help: str, default: object = None, **rest: Any) -> None:
        if default is not None:
            rest["default"], help = default, f"{help} (default: {default})"
        group.add_argument(name, help=help, **rest)

    return add
