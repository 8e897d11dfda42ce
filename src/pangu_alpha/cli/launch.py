"""Command line of the launchers in run_scripts/: options, topology, attempts, an exit code.

Called as `launch PROGRAM [options] [words for the program]`, PROGRAM being src/train.py or src/predict.py.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from glob import glob
from importlib.metadata import version
from pathlib import Path

import psutil

import pangu_alpha
from pangu_alpha.config.run import TrainConfig, load_train_config, unrunnable
from pangu_alpha.config.schema import ConfigError, to_mapping
from pangu_alpha.parallel.launch import Job, Node, commands, plain_nodes, refusals, table_nodes, topology
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.rank_table import read
from pangu_alpha.parallel.watch import Bulletin, Console, Failure, Signals, last_lines, watch
from pangu_alpha.parallel.workers import MsrunWorkers, OwnWorkers, log_of

_NPU = "/dev/davinci"  # and the device's number
_NOT_AGAIN = (2, 3)  # wrong input, and a run that stopped itself: another attempt would end the same way
_PORT_WAIT = 60.0  # seconds a port may take to become free after an attempt


def main(arguments: Sequence[str]) -> int:
    """Launches a program on this node, as one of perhaps many.

    Args:
        arguments: Path of the program, then the words of the command line.

    Returns:
        Exit code: 0, that of the first rank that failed, or 128 + n after a signal n.

    Raises:
        ValueError: Options that are wrong or do not fit the plan.
    """
    program, *words = arguments
    trains = Path(program).stem == "train"
    options, rest = parse(words, trains)
    if not trains:
        from pangu_alpha.cli.launch_predict import launch_predict

        return launch_predict(program, options, rest)
    config = load_train_config(options.config, _program_words(options, rest)[2:])
    job = make_job(program, options, rest, config)
    if options.compile_cache is not None:
        cache = str(Path(options.compile_cache).absolute() / graph_digest(config))
        variables = {"MS_COMPILER_CACHE_ENABLE": "1", "MS_COMPILER_CACHE_PATH": cache}
        job = replace(job, environment={**job.environment, **variables})
    if options.dry:
        print(topology(job.nodes, config.parallel, full=True), dry(job, options.log_dir), sep="\n")
        return 0
    here = this_node(job, options)
    print(topology(job.nodes, config.parallel, here.place), flush=True)
    if on_ascend(config, options.start):
        check_devices(here)
    return run_attempts(job, here, options)


def parse(words: Sequence[str], trains: bool) -> tuple[argparse.Namespace, list[str]]:
    """Options of the launcher, and the words left for the program.

    Raises:
        ValueError: An unknown option, with the nearest one; options that exclude each other.
    """
    parser = _parser(trains)
    options, rest = parser.parse_known_args(words)
    if not trains:
        return options, rest  # predict.py knows its own options
    known = re.findall(r"--[a-z-]+", parser.format_help())
    for word in rest:
        if word.startswith("-") or "=" not in word:
            near = difflib.get_close_matches(word.partition("=")[0], known, 1)
            hint = (
                f"did you mean {near[0]}?" if near else "options are --words, see --help; the rest key=value"
            )
            raise ValueError(f"{word}: unknown; {hint}")
    if options.start == "msrun" and (options.nnodes or 1) > 1 and options.master_addr is None:
        raise ValueError(
            f"--master-addr: needed with {options.nnodes} nodes: the address of node 0 that all nodes reach"
        )
    if (options.start == "rank-table") != (options.rank_table is not None):
        raise ValueError("--start rank-table and --rank-table FILE need each other")
    if options.rank_table is None:
        options.nnodes = options.nnodes or 1
    return options, rest


def _parser(trains: bool) -> argparse.ArgumentParser:
    name = "train" if trains else "predict"
    words = "--config FILE [key=value ...]" if trains else "[options of predict.py]"
    others = "Words key=value go to train.py." if trains else "Options not listed here go to predict.py."
    parser = argparse.ArgumentParser(
        prog=f"bash run_scripts/run_distribute_{name}.sh",
        usage=f"%(prog)s [options] {words}",
        description=f"Starts {name}.py on the devices of a node and watches over it; see docs/launching.md.",
        epilog=others,
        allow_abbrev=False,
    )
    add = parser.add_argument
    if trains:
        add("--config", required=True, metavar="FILE", help="YAML of the run")
    else:
        add("--prompt-file", required=True, metavar="FILE", help="prompts, one a line, shared out evenly")
        add(
            "--output", required=True, metavar="FILE", help="JSON lines of all workers, in the prompts' order"
        )
    _add_topology(parser, trains)
    _add_environment(parser)
    return parser


def _add_topology(parser: argparse.ArgumentParser, trains: bool) -> None:
    add = _adder(parser, "devices and nodes")
    needed = "what the plan needs" if trains else "1"
    add("--device", choices=("Ascend", "CPU"), help="device type; without it, the program's own choice")
    add("--nproc", type=_positive, metavar="N", help=f"workers of a node; without it, {needed}")
    if not trains:
        parser.set_defaults(restarts=0)
        return
    add("--nnodes", type=_positive, metavar="N", help="nodes; without it 1, or the rank table's")
    add("--node-rank", type=_natural, metavar="N", help="place of this node, from 0; needed with several")
    add("--master-addr", metavar="HOST", help="address of node 0 that all nodes reach (msrun); needed with "
        "several")  # fmt: skip
    add(
        "--master-port",
        type=_positive,
        default=8118,
        metavar="PORT",
        help="free port of node 0, and the next for each restart",
    )
    add("--start", choices=("msrun", "rank-table"), default="msrun", help="how workers find each other")
    add("--rank-table", metavar="FILE", help="HCCL rank table, for --start rank-table")
    add("--chip", metavar="NAME", help="chip whose rules the rank table must keep; see docs/rank_tables.md")
    add("--cluster-timeout", type=_positive, default=600, metavar="S", help="wait for all workers (msrun)")
    add("--restarts", type=_natural, default=0, metavar="N", help="attempts after a failure, --resume auto")
    add("--compile-cache", metavar="DIR", help="keep compiled graphs there (MS_COMPILER_CACHE_*)")


def _add_environment(parser: argparse.ArgumentParser) -> None:
    add = _adder(parser, "environment and logs")
    add("--log-dir", default="logs", metavar="DIR", help="logs of all attempts; best on shared storage")
    add("--heartbeat", type=_natural, default=30, metavar="S", help="between signs of life of a compilation")
    add("--hccl-connect-timeout", type=_positive, default=1200, metavar="S", help="HCCL_CONNECT_TIMEOUT")
    add("--hccl-exec-timeout", type=_positive, default=3600, metavar="S", help="HCCL_EXEC_TIMEOUT")
    add("--bind-cores", action="store_true", help="give every worker its own share of the cores")
    add("--dry", action="store_true", help="print what would run on every node, run nothing")


def _adder(parser: argparse.ArgumentParser, title: str) -> Callable[..., None]:
    group = parser.add_argument_group(title)

    def add(name: str, help: str, default: object = None, **rest: object) -> None:
        if default is not None:
            rest["default"], help = default, f"{help} (default: {default})"
        group.add_argument(name, help=help, **rest)

    return add


def _positive(text: str) -> int:
    return _natural(text, 1)


def _natural(text: str, least: int = 0) -> int:
    if not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def _program_words(options: argparse.Namespace, overrides: Sequence[str]) -> tuple[str, ...]:
    device = [] if options.device is None else [f"run.device={options.device}"]
    return ("--config", options.config, *overrides, *device)


def environment_of(options: argparse.Namespace) -> dict[str, str]:
    """The variables all processes get; the one place where they are set."""
    found = {
        "HCCL_CONNECT_TIMEOUT": str(options.hccl_connect_timeout),
        "HCCL_EXEC_TIMEOUT": str(options.hccl_exec_timeout),
        "PYTHONUNBUFFERED": "1",  # a log that lags behind hides the last words
    }
    return found


def graph_digest(config: TrainConfig) -> str:
    """Names all that goes into a run's graphs: MindSpore 2.9 itself would take a cached graph whose layer
    sizes, clipping or plan are of another config, without a word."""
    parts = to_mapping({name: getattr(config, name) for name in ("model", "optim", "parallel")})
    parts |= {
        "batch_size": config.run.batch_size,
        "device": config.run.device,
        "mindspore": version("mindspore"),
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for path in sorted(Path(pangu_alpha.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def on_ascend(config: TrainConfig, start: str) -> bool:
    """Whether the workers of a run are on Ascend: as it says, as only there it can run, or as NPUs are here.

    Args:
        config: The run; its workers train on CPU if this is False.
        start: How they find each other.
    """
    if config.run.device != "auto":
        return config.run.device == "Ascend"
    plan = config.parallel
    return plan.tp * plan.pp > 1 or start == "rank-table" or bool(glob(f"{_NPU}[0-9]*"))


def make_job(program: str, options: argparse.Namespace, overrides: Sequence[str], config: TrainConfig) -> Job:
    """What the options ask for.

    Raises:
        ValueError: It differs from the plan, cannot run, or is what every worker would refuse.
    """
    plan = config.parallel
    if config.run.device == "CPU" and (plan.tp * plan.pp > 1 or options.start == "rank-table"):
        raise ValueError(
            "--device CPU: MindSpore 2.9 trains data parallel only there, started by msrun; use tp = pp = 1, "
            "or `python src/plan.py replay` to compute a plan on CPU"
        )
    if options.rank_table is not None:
        nodes = table_nodes(read(options.rank_table, Mesh.of(plan), options.chip))
    else:
        nodes = plain_nodes(options.nnodes, options.nproc or max(plan.devices // options.nnodes, 1))
    if problems := list(refusals(nodes, plan, options.nnodes, options.nproc)):
        raise ValueError("\n".join(problems))
    if problems := list(unrunnable(config, plan.devices > 1 and on_ascend(config, options.start))):
        raise ConfigError(problems)
    return Job(
        program=(program, *_program_words(options, overrides)),
        nodes=nodes,
        start=options.start if plan.devices > 1 else "alone",
        environment=environment_of(options),
        master=(options.master_addr or "127.0.0.1", options.master_port),
        rank_table=options.rank_table and os.path.abspath(options.rank_table),
        cluster_timeout=options.cluster_timeout,
        bind_cores=options.bind_cores,
    )


def dry(job: Job, log_dir: str) -> str:
    """Every command of every node and the environment, as shell lines."""
    lines = ["# every process", *(f"export {key}={value}" for key, value in job.environment.items())]
    for node in job.nodes:
        lines.append(f"# {node.name}")
        folder = Path(log_dir) / f"node_{node.place}" / "001"
        for command in commands(job, node, folder, os.cpu_count() or 1):
            log = folder / "msrun.log" if command.rank is None else log_of(folder, command.rank)
            lines.append(f"{command} >{log} 2>&1 &")
    return "\n".join(lines)


def this_node(job: Job, options: argparse.Namespace) -> Node:
    """The node this process is on.

    Raises:
        ValueError: It cannot be told, or is none of the job's.
    """
    if options.node_rank is not None:
        if options.node_rank >= len(job.nodes):
            raise ValueError(f"--node-rank: {options.node_rank} lies outside 0..{len(job.nodes) - 1}")
        return job.nodes[options.node_rank]
    if options.rank_table is not None:
        own = _addresses()
        for node in job.nodes:
            if node.name in own:
                return node
        raise ValueError(
            f"--rank-table: {options.rank_table}: no server_id is this node's ({', '.join(sorted(own))}); "
            "use the table of this cluster, or name this node by --node-rank, its place in the table"
        )
    if len(job.nodes) > 1:
        raise ValueError(f"--node-rank: needed with {len(job.nodes)} nodes: 0 to {len(job.nodes) - 1}")
    return job.nodes[0]


def _addresses() -> set[str]:
    """Names and addresses of this machine, but for loopback ones."""
    found = {address.address for nic in psutil.net_if_addrs().values() for address in nic
             if address.family in (socket.AF_INET, socket.AF_INET6)}  # fmt: skip
    return {address for address in found if not address.startswith("127.")} - {"::1"} | {socket.gethostname()}


def check_devices(node: Node) -> None:
    """Looks for the node's NPUs.

    Raises:
        ValueError: One of them is not there.
    """
    there = {int(path.removeprefix(_NPU)) for path in glob(f"{_NPU}[0-9]*")}
    missing = sorted({number for _, number in node.workers} - there)
    if missing:
        raise ValueError(
            f"{node.name}: devices {', '.join(map(str, missing))} are wanted, /dev has {len(there)} davinci "
            "devices; look at `npu-smi info`, change --nproc, or use --device CPU"
        )


def run_attempts(job: Job, here: Node, options: argparse.Namespace) -> int:
    """Runs the job, again after a failure where that may help.

    Args:
        job: What to start.
        here: This node.
        options: Gives log folder, heartbeat and number of restarts.

    Returns:
        Exit code.
    """
    with Signals() as signals:
        for attempt in range(options.restarts + 1):
            if attempt:
                print(f"restart {attempt} of {options.restarts}, from the last whole checkpoint", flush=True)
            failure = _attempt(_of_attempt(job, attempt), here, options, signals, attempt)
            if signals.number:
                return 128 + signals.number
            if failure is None:
                return 0
            _explain(failure)
            if failure.code in _NOT_AGAIN:
                break
    return failure.exit_code


def _of_attempt(job: Job, attempt: int) -> Job:
    """A restart resumes, and takes a port where no worker can meet the last attempt's scheduler."""
    address, port = job.master
    resume = ("--resume", "auto") if attempt else ()
    return replace(job, program=(*job.program, *resume), master=(address, port + attempt))


def _attempt(
    job: Job, here: Node, options: argparse.Namespace, signals: Signals, attempt: int
) -> Failure | None:
    root = Path(options.log_dir).absolute()
    folder = new_folder(root / f"node_{here.place}")
    if job.start == "msrun" and here.place == 0:
        wait_for_port(*job.master)
    bulletin = Bulletin(root, folder, attempt)
    started = commands(job, here, folder, os.cpu_count() or 1)
    if shutil.which(started[0].words[0]) is None:
        raise ValueError(
            f"{started[0].words[0]}: not on the PATH; activate the environment, or start by run_scripts/"
        )
    for command in started:
        print(f"+ {command}", flush=True)
    print(f"logs: {folder}", flush=True)
    if job.start == "msrun":
        workers = MsrunWorkers(started[0], job.environment, folder, len(here.workers))
    else:
        workers = OwnWorkers(started, job.environment, folder)
    console = Console(log_of(folder, here.ranks[0]), options.heartbeat)
    return watch(workers, console, signals, bulletin, here.name, folder)


def new_folder(parent: Path) -> Path:
    """Makes the next of the folders 001, 002, ... in `parent`; those that are there stay as they are."""
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name) for path in parent.iterdir() if path.name.isdigit()]
    folder = parent / f"{max(taken, default=0) + 1:03d}"
    folder.mkdir()
    return folder


def wait_for_port(address: str, port: int, seconds: float = _PORT_WAIT) -> None:
    """Returns when a port of this machine can be listened on.

    Raises:
        ValueError: It stays taken, or the address is not this machine's.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_server((address, port)):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ValueError(
                    f"--master-addr {address} --master-port {port}: no listening on it ({error.strerror}); "
                    "on node 0 it must be an address of its own and a free port"
                ) from error
        time.sleep(0.5)


def _explain(failure: Failure) -> None:
    print(f"error: {failure}; the other workers are stopped", file=sys.stderr)
    for line in last_lines(Path(failure.log)):
        print(f"  | {line}", file=sys.stderr)
    sys.stderr.flush()


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
