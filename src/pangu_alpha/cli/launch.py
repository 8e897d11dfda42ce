"""Command line of the launchers in run_scripts/: options, topology, attempts, an exit code.

Called as `launch PROGRAM [options] [words for the program]`, PROGRAM being src/train.py or src/predict.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from glob import glob
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psutil

import pangu_alpha
from pangu_alpha.cli.launch_options import parse
from pangu_alpha.config.run import TrainConfig, load_train_config, unrunnable
from pangu_alpha.config.schema import ConfigError, to_mapping
from pangu_alpha.files.lock import hold_folder
from pangu_alpha.files.shown import shown, shown_name
from pangu_alpha.parallel.belonging import MARK, OUTPUT, Launcher, wait_for_orphans
from pangu_alpha.parallel.launch import (
    COMMANDS,
    Job,
    Node,
    commands,
    log_dir_fault,
    plain_nodes,
    refusals,
    shell_word,
    table_nodes,
    topology,
)
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.rank_table import read
from pangu_alpha.parallel.signals import Signals
from pangu_alpha.parallel.watch import Bulletin, Console, Failure, last_lines, watch
from pangu_alpha.parallel.workers import MsrunWorkers, OwnWorkers, log_of

_NPU = "/dev/davinci"  # and the device's number
_NOT_AGAIN = (2, 3)  # wrong input, and a run that stopped itself: another attempt would end the same way
_MOST_DEVICES = 1 << 20  # more are a slip of the keyboard, and would be written out one by one
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
    if not arguments or arguments[0].startswith("-"):
        raise ValueError("give the program first: src/train.py or src/predict.py, then --help says more")
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
    output = os.path.realpath(config.run.output)
    require_free(output, here, options.grace)
    return run_attempts(replace(job, environment={**job.environment, OUTPUT: output}), here, options)


def require_free(output: str, here: Node, grace: int) -> None:
    """Refuses a run's folder in which another run works, before a worker is started.

    What a launcher that was killed has left on this node is waited for: it saves and ends by itself. The
    node of rank 0 looks for other runs; rank 0 itself then holds the folder for all.

    Raises:
        ValueError: Another process works in it, or does not end.
    """
    wait_for_orphans(output, grace)
    if 0 in here.ranks and os.path.isdir(output):
        with hold_folder(output, "launching a training"):
            pass


def _program_words(options: argparse.Namespace, overrides: Sequence[str]) -> tuple[str, ...]:
    device = [] if options.device is None else [f"run.device={options.device}"]
    return ("--config", options.config, *overrides, *device)


def environment_of(options: argparse.Namespace) -> dict[str, str]:
    """The variables all processes get; the one place where they are set."""
    return {
        "HCCL_CONNECT_TIMEOUT": str(options.hccl_connect_timeout),
        "HCCL_EXEC_TIMEOUT": str(options.hccl_exec_timeout),
        "PYTHONUNBUFFERED": "1",  # a log that lags behind hides the last words
        "PANGU_PYTHON": sys.executable,
        "PATH": os.pathsep.join([str(COMMANDS), os.environ.get("PATH", os.defpath)]),  # "python" is the above
    }


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
        nproc = options.nproc or max(plan.devices // options.nnodes, 1)
        if options.nnodes * nproc > max(_MOST_DEVICES, plan.devices):
            raise ValueError(f"--nnodes, --nproc: {options.nnodes} nodes of {nproc} workers are too many")
        nodes = plain_nodes(options.nnodes, nproc)
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
    """Every command of every node and the environment, as shell lines.

    A log folder that a real start refuses is named on standard error.
    """
    if job.start == "msrun" and (fault := log_dir_fault(str(Path(log_dir).absolute()))) is not None:
        print(f"warning: {shown(fault)}", file=sys.stderr)
    lines = ["# every process"]
    for key, value in job.environment.items():
        word = f'{shell_word(str(COMMANDS))}:"$PATH"' if key == "PATH" else shell_word(value)
        lines.append(f"export {key}={word}")
    for node in job.nodes:
        folder = Path(log_dir) / f"node_{node.place}" / "001"
        lines += [f"# {shown_name(node.name)}", f"mkdir -p -- {shell_word(str(folder))}"]
        for command in commands(job, node, folder, os.cpu_count() or 1):
            log = folder / "msrun.log" if command.rank is None else log_of(folder, command.rank)
            lines.append(f"{command} >{shell_word(str(log))} 2>&1 &")
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
    require_startable(job, options.log_dir)
    job = replace(job, environment={**job.environment, MARK: Launcher.this(options.grace).mark})
    with Signals() as signals:
        for attempt in range(options.restarts + 1):
            if attempt:
                print(f"restart {attempt} of {options.restarts}, from the last whole checkpoint", flush=True)
            failure = _attempt(_of_attempt(job, attempt), here, options, signals, attempt)
            if signals.number:
                return 128 + (signals.again or signals.number)
            if failure is None:
                return 0
            _explain(failure)
            if failure.code in _NOT_AGAIN:
                break
    return failure.exit_code


def require_startable(job: Job, log_dir: str) -> None:
    """Refuses what would fail in every worker.

    Raises:
        ValueError: Something that the commands need is missing, or a path that they cannot take.
    """
    if job.start == "msrun":
        if find_spec("mindspore") is None:
            raise ValueError(
                f"{sys.executable}: MindSpore is not installed for this interpreter; give another one by "
                "PANGU_PYTHON, or start by run_scripts/ without it"
            )
        if (fault := log_dir_fault(str(Path(log_dir).absolute()))) is not None:
            raise ValueError(fault)
    if os.pathsep in str(COMMANDS) or not os.access(COMMANDS / "python", os.X_OK):
        raise ValueError(
            f"{COMMANDS / 'python'}: cannot be run by its name: it must be executable, and its path without "
            f"{os.pathsep!r}; install the package elsewhere or anew"
        )
    if job.bind_cores and shutil.which("taskset") is None:
        raise ValueError("--bind-cores: needs taskset (package util-linux), which is not on the PATH")


def _of_attempt(job: Job, attempt: int) -> Job:
    """A restart resumes, and takes a port where no worker can meet the last attempt's scheduler."""
    address, port = job.master
    resume = ("--restarted",) if attempt else ()
    return replace(job, program=(*job.program, *resume), master=(address, port + attempt))


def _attempt(
    job: Job, here: Node, options: argparse.Namespace, signals: Signals, attempt: int
) -> Failure | None:
    root = Path(options.log_dir).absolute()
    folder = new_folder(root / f"node_{here.place}")
    if job.start == "msrun" and here.place == 0:
        wait_for_port(*job.master, given_up=lambda: signals.number != 0)
    if signals.number:
        return None
    bulletin = Bulletin(root, folder, attempt, _name_of(job)) if len(job.nodes) > 1 else None
    started = commands(job, here, folder, os.cpu_count() or 1)
    for command in started:
        print(f"+ {command}", flush=True)
    print(f"logs: {shown(folder)}", flush=True)
    if job.start == "msrun":
        workers = MsrunWorkers(started[0], job.environment, folder, len(here.workers))
    else:
        workers = OwnWorkers(started, job.environment, folder)
    console = Console(log_of(folder, here.ranks[0]), options.heartbeat)
    return watch(workers, console, signals, bulletin, here.name, folder, options.grace)


def _name_of(job: Job) -> str:
    """Tells a job from others that use the same log folder; all its nodes give it the same one."""
    parts = (job.environment.get(OUTPUT), job.start, job.master[0], [node.workers for node in job.nodes])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def new_folder(parent: Path) -> Path:
    """Makes the next of the folders 001, 002, ... in `parent`; those that are there stay as they are."""
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        taken = [int(path.name) for path in parent.iterdir() if re.fullmatch("[0-9]{1,9}", path.name)]
        folder = parent / f"{max(taken, default=0) + 1:03d}"
        with suppress(FileExistsError):  # another launcher was quicker
            folder.mkdir()
            return folder


def wait_for_port(
    address: str,
    port: int,
    seconds: float = _PORT_WAIT,
    given_up: Callable[[], bool] = lambda: False,
) -> None:
    """Returns when a port of this machine can be listened on, or when it no longer matters.

    Raises:
        ValueError: It stays taken, or the address is not this machine's.
    """
    deadline = time.monotonic() + seconds
    host = address.strip("[]")
    while not given_up():
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            with socket.create_server((host, port), family=family):
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
        print(f"  | {shown(line)}", file=sys.stderr)
    sys.stderr.flush()


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
