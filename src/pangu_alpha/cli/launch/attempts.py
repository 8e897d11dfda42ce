"""A launcher's attempts: checks what they need, starts and watches them, repeats them after a failure."""

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
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from glob import glob
from importlib.util import find_spec
from pathlib import Path

import psutil

from pangu_alpha.files.shown import shown, shown_name
from pangu_alpha.launcher.commands import (
    COMMANDS,
    Job,
    Node,
    commands,
    log_dir_fault,
    shell_word,
)
from pangu_alpha.launcher.watch import Bulletin, Console, Failure, last_lines, watch
from pangu_alpha.launcher.workers import MsrunWorkers, OwnWorkers, log_of
from pangu_alpha.processes.belonging import MARK, OUTPUT, Launcher
from pangu_alpha.processes.signals import Signals

NPU = "/dev/davinci"  # followed by the number of the device
_NOT_AGAIN = (2, 3)  # wrong input, or a run that stopped itself: another attempt would end in the same way
_PORT_WAIT = 60.0  # seconds that a port may take to become free after an attempt


def environment_of(options: argparse.Namespace) -> dict[str, str]:
    """The environment variables that all processes get; they are set only here."""
    return {
        "HCCL_CONNECT_TIMEOUT": str(options.hccl_connect_timeout),
        "HCCL_EXEC_TIMEOUT": str(options.hccl_exec_timeout),
        "PYTHONUNBUFFERED": "1",  # otherwise the last lines before a crash may be missing in the log
        "PANGU_PYTHON": sys.executable,
        "PATH": os.pathsep.join([str(COMMANDS), os.environ.get("PATH", os.defpath)]),  # COMMANDS has "python"
    }


def dry(job: Job, log_dir: str) -> str:
    """Returns the environment and every command of every node, as shell lines.

    It warns on standard error about a log folder that a real start would refuse.
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
    """Returns the node that this process runs on.

    Raises:
        ValueError: The node cannot be determined, or is not one of the job's.
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
    """Names and addresses of this machine, except loopback addresses."""
    found = {address.address for nic in psutil.net_if_addrs().values() for address in nic
             if address.family in (socket.AF_INET, socket.AF_INET6)}  # fmt: skip
    return {address for address in found if not address.startswith("127.")} - {"::1"} | {socket.gethostname()}


def check_devices(node: Node) -> None:
    """Checks that the node's NPUs exist.

    Raises:
        ValueError: One of them does not exist.
    """
    there = {int(path.removeprefix(NPU)) for path in glob(f"{NPU}[0-9]*")}
    missing = sorted({number for _, number in node.workers} - there)
    if missing:
        raise ValueError(
            f"{node.name}: devices {', '.join(map(str, missing))} are wanted, /dev has {len(there)} davinci "
            "devices; look at `npu-smi info`, change --nproc, or use --device CPU"
        )


def run_attempts(job: Job, here: Node, options: argparse.Namespace) -> int:
    """Runs the job, and runs it again after a failure if that may help.

    Args:
        options: Gives log folder, heartbeat, grace period and number of restarts.

    Returns:
        Exit code.
    """
    require_startable(job, options.log_dir)
    job = replace(job, environment={**job.environment, MARK: Launcher.this(options.grace).mark})
    code = 0
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
            code = failure.exit_code
            if failure.code in _NOT_AGAIN:
                break
    return code


def require_startable(job: Job, log_dir: str) -> None:
    """Refuses a job that would fail in every worker.

    Raises:
        ValueError: Something that the commands need is missing, or they cannot use a path.
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
    """Adapts the job to an attempt: a restart resumes, and uses a new port.

    On the old port, a worker might still meet the scheduler of the last attempt.
    """
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
    workers: MsrunWorkers | OwnWorkers
    if job.start == "msrun":
        workers = MsrunWorkers(started[0], job.environment, folder, len(here.workers))
    else:
        workers = OwnWorkers(started, job.environment, folder)
    console = Console(log_of(folder, here.ranks[0]), options.heartbeat)
    return watch(workers, console, signals, bulletin, here.name, folder, options.grace)


def _name_of(job: Job) -> str:
    """A name that distinguishes jobs with the same log folder, and is the same on all nodes of a job."""
    parts = (job.environment.get(OUTPUT), job.start, job.master[0], [node.workers for node in job.nodes])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def new_folder(parent: Path) -> Path:
    """Makes the next of the folders 001, 002, ... in `parent`, and leaves existing ones unchanged."""
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        taken = [int(path.name) for path in parent.iterdir() if re.fullmatch("[0-9]{1,9}", path.name)]
        folder = parent / f"{max(taken, default=0) + 1:03d}"
        with suppress(FileExistsError):  # another launcher has just made it
            folder.mkdir()
            return folder


def wait_for_port(
    address: str,
    port: int,
    seconds: float = _PORT_WAIT,
    given_up: Callable[[], bool] = lambda: False,
) -> None:
    """Returns when this machine can listen on a port, or when `given_up` returns True.

    Raises:
        ValueError: The port stays in use, or the address does not belong to this machine.
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
