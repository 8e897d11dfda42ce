"""Plans a launch: which ranks run on which node, by which commands, in which environment.

Pure functions: they read nothing and start nothing. Workers are started by MindSpore's own means: msrun, a
rank table, or neither for processes that do not communicate.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pangu_alpha.cluster.tables.problem import ranges
from pangu_alpha.cluster.tables.rank_table import RankTable
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.files.shown import quoted, shown_name
from pangu_alpha.parallel.mesh import AXES, Mesh

Start = Literal["msrun", "rank-table", "alone"]
COMMANDS = Path(__file__).with_name("bin")  # "python" and "msrun" of the chosen interpreter
_SHOWN = 16  # lines of a topology that are shown unless all are asked for


@dataclass(frozen=True)
class Node:
    """A machine and its workers.

    Args:
        place: Index among the nodes, from 0.
        name: The name shown to people.
        workers: (rank, device) of each worker, in the order of the local ranks.
    """

    place: int
    name: str
    workers: tuple[tuple[int, int], ...]

    @property
    def ranks(self) -> tuple[int, ...]:
        """Global ranks of the node's workers."""
        return tuple(rank for rank, _ in self.workers)


@dataclass(frozen=True)
class Job:
    """What is to be started on every node.

    Args:
        program: Words of every worker's command after `python`. Where msrun does not start the workers,
            "{rank}" in them is replaced by the rank.
        start: How the workers find each other; "alone" means that they do not.
        environment: Variables that every process gets.
        master: Address and port of msrun's scheduler.
        rank_table: Path of the rank table.
        cluster_timeout: Seconds that msrun waits for all workers to appear.
        bind_cores: Whether every worker gets its own share of the cores.
    """

    program: tuple[str, ...]
    nodes: tuple[Node, ...]
    start: Start
    environment: Mapping[str, str] = field(default_factory=dict)
    master: tuple[str, int] = ("127.0.0.1", 8118)
    rank_table: str | None = None
    cluster_timeout: int = 600
    bind_cores: bool = False

    @property
    def size(self) -> int:
        """Number of workers on all nodes."""
        return sum(len(node.workers) for node in self.nodes)


@dataclass(frozen=True)
class Command:
    """The command of one process of a node.

    Args:
        environment: Variables in addition to the job's.
        rank: Rank of the process; None for msrun, which starts all workers of its node.
    """

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    rank: int | None = None

    def __str__(self) -> str:
        return " ".join([*(f"{key}={shell_word(value)}" for key, value in self.environment.items()),
                         *map(shell_word, self.words)])  # fmt: skip


# All control characters but tab and line feed, and surrogates, Python's form of bytes that are not UTF-8.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\udc80-\udcff]")


def shell_word(text: str) -> str:
    """Quotes a word for bash, with control characters escaped so that a terminal does not act on them."""
    if not _CONTROL.search(text):
        return shlex.quote(text)
    return "$'" + "".join(map(_in_bash, text)) + "'"


def _in_bash(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    code = ord(character)
    if code >= 0xDC80:
        return f"\\x{code - 0xDC00:02x}" if code <= 0xDCFF else character
    if code >= 0x80 and _CONTROL.match(character):
        return f"\\u{code:04x}"
    return f"\\x{code:02x}" if code < 0x20 or code == 0x7F else character


_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")


def address_fault(text: str) -> str | None:
    """Returns what is wrong with a host name or address that an option gives, or None."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    with suppress(ValueError):
        ipaddress.ip_address(inner)
        return None
    if _HOST.fullmatch(text) and not re.fullmatch(r"[0-9.]+", text):
        return None
    user, at, host = text.rpartition("@")
    if at and address_fault(host) is None:
        return f"{quoted(text)} names a user; give the host alone: {host}"
    host, colon, port = text.rpartition(":")
    if colon and port.isdecimal() and address_fault(host) is None:
        return f"{quoted(text)} names a port; give the host alone, {host}, and a port by --master-port"
    if re.search(r"[\[\],*{}]|\s", text):
        return f"{quoted(text)} is a pattern or a list; give one host, such as 10.0.0.1 or node01"
    return f"{quoted(text)} is no name or address of a host, such as node01 or 10.0.0.1"


_ACTIVE = re.compile(r"[;&|<>()$`\\\"'\x00-\x1f\x7f]")


def log_dir_fault(path: str) -> str | None:
    """Returns why msrun cannot use a log folder, or None.

    MindSpore 2.9 puts the path into a shell command without quoting it; this check can go once it quotes.
    """
    found = sorted(set(_ACTIVE.findall(path)))
    if not found:
        return None
    return (
        f"--log-dir: {quoted(path, 200)}: msrun hands this path to a shell, which would act on "
        f"{' '.join(map(repr, found))}; give a folder without such characters"
    )


def plain_nodes(nnodes: int, nproc: int) -> tuple[Node, ...]:
    """Returns nodes with equal numbers of workers and consecutive ranks, as msrun assigns them."""
    return tuple(
        Node(place, f"node {place}", tuple((place * nproc + local, local) for local in range(nproc)))
        for place in range(nnodes)
    )


def table_nodes(table: RankTable) -> tuple[Node, ...]:
    """Returns the nodes of a rank table, in the table's order and with its ranks."""
    return tuple(
        Node(place, server.server_id, tuple((device.rank_id, device.device_id) for device in server.devices))
        for place, server in enumerate(table.servers)
    )


def refusals(
    nodes: Sequence[Node], plan: ParallelPlan, nnodes: int | None, nproc: int | None
) -> Iterator[str]:
    """Yields one sentence for each way in which the nodes contradict the plan or the numbers asked for."""
    total = sum(len(node.workers) for node in nodes)
    if total != plan.devices:
        yield (
            f"the config's plan needs {_count(plan.devices, 'device')} (dp {plan.dp} * tp {plan.tp} * pp "
            f"{plan.pp}), {_count(len(nodes), 'node')} of {_counts(nodes)} workers give {total}; change "
            "--nnodes and --nproc, or the degrees, such as parallel.dp=..."
        )
    if nnodes is not None and nnodes != len(nodes):
        yield f"--nnodes: {nnodes} asked for, the rank table has {len(nodes)} servers"
    for node in nodes:
        if nproc is not None and len(node.workers) != nproc:
            yield f"--nproc: {nproc} asked for, the rank table gives {node.name} {len(node.workers)} devices"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _counts(nodes: Sequence[Node]) -> str:
    return ranges({len(node.workers) for node in nodes})


def topology(nodes: Sequence[Node], plan: ParallelPlan, here: int | None = None, full: bool = False) -> str:
    """Returns a text table of the nodes, their ranks and their coordinates in the plan's grid.

    Args:
        here: Index of this node, which is marked.
        full: Show every node; otherwise a long table is cut in the middle.
    """
    mesh = Mesh.of(plan)
    total = sum(len(node.workers) for node in nodes)
    lines = [
        f"{_count(len(nodes), 'node')}, {_count(total, 'device')}: dp {plan.dp}, tp {plan.tp}, pp {plan.pp}"
    ]
    names = {"pp": "stage", "dp": "data", "tp": "tensor"}
    cut = not full and len(nodes) > _SHOWN
    for node in nodes:
        if cut and _SHOWN - 2 <= node.place < len(nodes) - 1 and node.place != here:
            continue
        places = [mesh.coordinates(rank) for rank in node.ranks]
        parts = [f"{names[axis]} {ranges({place.along(axis) for place in places})}" for axis in AXES]
        mark = "   <- this node" if node.place == here else ""
        lines.append(f"  {shown_name(node.name):<16} ranks {ranges(node.ranks):<11} {'  '.join(parts)}{mark}")
    if cut:
        lines.append(f"  ({len(nodes) - len(lines) + 1} more nodes; --dry shows all)")
    return "\n".join(lines)


def commands(job: Job, node: Node, log_dir: Path, cores: int) -> tuple[Command, ...]:
    """Returns the commands of one node's processes.

    Args:
        log_dir: Folder of the logs, for msrun, which writes them itself.
        cores: Number of the node's cores, which are shared out if the job binds cores.
    """
    if job.start == "msrun":
        return (Command(_msrun(job, node, log_dir)),)
    words = ("python", *job.program)
    found = []
    for local, (rank, device) in enumerate(node.workers):
        own = tuple(word.replace("{rank}", str(rank)) for word in words)
        found.append(Command(_bound(job, node, local, cores) + own, _identity(job, rank, device), rank))
    return tuple(found)


def _msrun(job: Job, node: Node, log_dir: Path) -> tuple[str, ...]:
    address, port = job.master
    return (
        "msrun",
        f"--worker_num={job.size}",
        f"--local_worker_num={len(node.workers)}",
        f"--master_addr={address}",
        f"--master_port={port}",
        f"--node_rank={node.place}",
        f"--log_dir={log_dir}",
        f"--cluster_time_out={job.cluster_timeout}",
        f"--bind_core={job.bind_cores}",
        f"--tail_worker_log={job.size}",  # no such rank: the launcher follows the logs itself
        "--join=True",
        *job.program,
    )


def _identity(job: Job, rank: int, device: int) -> dict[str, str]:
    """Returns the variables that give a worker its rank and device where msrun does not set them."""
    if job.start == "alone":
        return {"ASCEND_RT_VISIBLE_DEVICES": str(device)}
    assert job.rank_table is not None
    return {
        "RANK_TABLE_FILE": job.rank_table,
        "RANK_SIZE": str(job.size),
        "RANK_ID": str(rank),
        "DEVICE_ID": str(device),
    }


def _bound(job: Job, node: Node, local: int, cores: int) -> tuple[str, ...]:
    if not job.bind_cores:
        return ()
    share = max(cores // len(node.workers), 1)
    first = local * share % cores
    return ("taskset", "-c", f"{first}-{first + share - 1}")
