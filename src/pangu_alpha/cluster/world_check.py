"""Compares all ranks in the first second of a run: same program, same configuration, devices as planned.

A group over the wrong machines would train slowly or not at all; two different programs would train
nothing useful. So any difference stops all ranks, with one message that is the same on all of them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from pangu_alpha.cluster.process_identity import (
    UNKNOWN,
    UNREADABLE,
    Identity,
    compared_keys,
    identify,
    versions,
)
from pangu_alpha.cluster.tables.problem import plain_id, ranges
from pangu_alpha.cluster.tables.rank_table import RankTable
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.files.shown import shown_name
from pangu_alpha.parallel.mesh import COORDINATE_OF, RANK_ORDER, Mesh

logger = logging.getLogger(__name__)

_SHOWN = 8  # members of a group that the log names
_TEXT = 96  # bytes of a text that ranks exchange


class RanksDifferError(ValueError):
    """The ranks of a run do not fit together. All ranks raise it at once, from the records they gathered."""


class Ranks(Protocol):
    """The ranks of a run; parallel.world.World is one."""

    rank: int
    size: int

    def gather(self, array: np.ndarray) -> np.ndarray:
        """Returns the arrays of all ranks, by rank."""


def check_world(world: Ranks, config: TrainConfig, device: int | None) -> None:
    """Compares this process with the others; call it when all ranks have joined, before anything slow.

    Args:
        device: MindSpore's number of the NPU in use; None on CPU.

    Raises:
        RanksDifferError: Something differs that must be equal, or a rank is not where the plan puts it.
    """
    if world.size > 1:
        compare_ranks(world, identify(world.rank, config, device))


def compare_ranks(world: Ranks, own: Identity) -> None:
    """Compares the identities of all ranks; `check_world` with this process's identity given.

    Raises:
        RanksDifferError: Something differs that must be equal, or a rank is not where the plan puts it.
    """
    records = world.gather(own.record)
    for field, explain in _EXPLANATIONS.items():
        if others := _minority(records[field]):
            raise RanksDifferError(explain(world, own, records, others))
    plan = own.config.parallel
    for problem in misplacements(records, own.table, plan):
        raise RanksDifferError(problem)
    if world.rank == 0:
        for line in group_lines(records, own.table, plan):
            logger.info("%s", line)
        if (note := _spread_note(records, plan)) and own.table is None:
            logger.warning("%s", note)


def _minority(values: np.ndarray) -> list[int]:
    """Returns the ranks whose value is not the most frequent one; on a tie, not that of the first rank."""
    usual = Counter(values.tolist()).most_common(1)[0][0]
    return [rank for rank, value in enumerate(values.tolist()) if value != usual]


def _against(records: np.ndarray, others: Sequence[int]) -> str:
    """Returns which ranks differ from which other one, as in "rank 3 (node02) against rank 0 (node01)"."""
    usual = next(rank for rank in range(len(records)) if rank not in set(others))
    noun = "rank" if len(others) == 1 else "ranks"
    hosts = sorted({_host(records, rank) for rank in others})
    named = ", ".join(hosts[:_SHOWN]) + (" ..." if len(hosts) > _SHOWN else "")
    return f"{noun} {ranges(others)} ({named}) against rank {usual} ({_host(records, usual)})"


def _host(records: np.ndarray, rank: int) -> str:
    return shown_name(records["host"][rank].decode("ascii", "replace"), 40)


def _other_versions(world: Ranks, own: Identity, records: np.ndarray, others: list[int]) -> str:
    texts = _gather_text(world, versions())
    usual = next(rank for rank in range(world.size) if rank not in set(others))
    return (
        f"the ranks run different versions: {_against(records, others)}: {texts[others[0]]} against "
        f"{texts[usual]}; install the same on all nodes"
    )


def _other_source(world: Ranks, own: Identity, records: np.ndarray, others: list[int]) -> str:
    return (
        f"the ranks run different sources of pangu_alpha: {_against(records, others)}; bring all nodes to "
        "the same commit"
    )


def _other_config(world: Ranks, own: Identity, records: np.ndarray, others: list[int]) -> str:
    keys = compared_keys(own.config)
    digests = world.gather(np.array(list(keys.values()), np.uint32))
    differing = [key for key, column in zip(keys, digests.T, strict=True) if len(set(column.tolist())) > 1]
    return (
        f"{', '.join(differing)}: not the same on all ranks: {_against(records, others)}; start all nodes "
        "with the same YAML and the same words behind it"
    )


def _other_table(world: Ranks, own: Identity, records: np.ndarray, others: list[int]) -> str:
    return (
        f"RANK_TABLE_FILE: not the same rank table on all ranks: {_against(records, others)}; copy one file "
        "to all nodes"
    )


_Explanation = Callable[[Ranks, Identity, np.ndarray, list[int]], str]
_EXPLANATIONS: dict[str, _Explanation] = {
    "versions": _other_versions,
    "source": _other_source,
    "plan": _other_config,
    "config": _other_config,
    "table": _other_table,
}


def _gather_text(world: Ranks, text: str) -> list[str]:
    sent = np.array(text.encode("ascii", "replace")[:_TEXT], f"S{_TEXT}")
    return [each.decode("ascii", "replace") for each in world.gather(sent)]


def misplacements(records: np.ndarray, table: RankTable | None, plan: ParallelPlan) -> Iterator[str]:
    """Yields a sentence for every rank that is not where rank table and plan put it.

    Unknown facts are never held against a rank: inside a container the host's addresses may be invisible.

    Args:
        records: One of the type RECORD for each rank.
        table: The rank table of all ranks, if the run has one.
    """
    unread = np.flatnonzero(records["server"] == UNREADABLE).tolist()
    if unread:
        yield (
            f"RANK_TABLE_FILE: ranks {ranges(unread)} ({_host(records, unread[0])}) cannot use it; "
            "`python src/rank_table.py check FILE` on that node says why"
        )
        return
    yield from _doubled_devices(records)
    if table is not None:
        yield from _other_places(records, table)
        yield from _other_machines(records, table, Mesh.of(plan))


def _doubled_devices(records: np.ndarray) -> Iterator[str]:
    held: dict[tuple[int, int], int] = {}
    for rank, (place, device) in enumerate(zip(records["place"], records["device"], strict=True)):
        if device == UNKNOWN:
            continue
        first = held.setdefault((int(place), int(device)), rank)
        if first != rank:
            yield (
                f"ranks {first} and {rank} both run on device {device} of {_host(records, rank)}; give each "
                "its own DEVICE_ID, or start by run_scripts/run_distribute_train.sh"
            )


def _other_places(records: np.ndarray, table: RankTable) -> Iterator[str]:
    """Yields ranks whose number, device or address differs from the rank table."""
    names = [plain_id(server.server_id) for server in table.servers]
    for rank, each in enumerate(records):
        where = f"rank {rank} ({_host(records, rank)})"
        if each["rank"] not in (UNKNOWN, rank):
            yield (
                f"{where}: RANK_ID in its environment is {each['rank']}; start by "
                "run_scripts/run_distribute_train.sh --rank-table, or correct RANK_ID"
            )
        if UNKNOWN not in (each["device"], each["table_device"]) and each["device"] != each["table_device"]:
            yield (
                f"{where}: runs on device {each['device']}, the rank table has it on device "
                f"{each['table_device']} of {names[each['server']]}; correct DEVICE_ID, or the table"
            )
        if each["host_server"] not in (UNKNOWN, each["server"]):
            yield (
                f"{where}: runs on the host that the rank table calls {names[each['host_server']]}, but has "
                f"this rank on {names[each['server']]}; start every node with its own ranks "
                "(--node-rank), or correct the table"
            )


def _other_machines(records: np.ndarray, table: RankTable, mesh: Mesh) -> Iterator[str]:
    """Yields servers of the table that are several machines, and machines that are several servers of it."""
    names = [plain_id(server.server_id) for server in table.servers]
    remedy = "start every node with the ranks that the table gives it (--node-rank), or correct the table"
    first_of_server: dict[int, int] = {}
    first_of_place: dict[int, int] = {}
    for rank, each in enumerate(records):
        first = first_of_server.setdefault(int(each["server"]), rank)
        if records["machine"][first] != each["machine"]:
            axis = next((axis for axis in RANK_ORDER if first in mesh.group(axis, rank)), None)
            group = f" (one {axis} group)" if axis else ""
            yield (
                f"the rank table has ranks {first} and {rank}{group} on one server, "
                f"{names[each['server']]}, but they run on {_host(records, first)} and "
                f"{_host(records, rank)}; {remedy}"
            )
        first = first_of_place.setdefault(int(each["place"]), rank)
        if records["server"][first] != each["server"]:
            yield (
                f"ranks {first} and {rank} run on one machine, {_host(records, rank)}, but the rank table "
                f"has them on {names[records['server'][first]]} and {names[each['server']]}; {remedy}"
            )


def group_lines(records: np.ndarray, table: RankTable | None, plan: ParallelPlan) -> Iterator[str]:
    """Yields the first and the last group of each axis, with rank, server and device of their members.

    Args:
        records: One of the type RECORD for each rank.
        table: Gives the names of servers; without it, the hosts' names are used.
    """
    mesh = Mesh.of(plan)
    for axis in (axis for axis in RANK_ORDER if mesh.degree(axis) > 1):
        first, last = mesh.group(axis, 0), mesh.group(axis, mesh.size - 1)
        number = mesh.size // mesh.degree(axis)
        noun = f"{number} group{'s' * (number > 1)} of {mesh.degree(axis)}"
        yield f"{axis}: {noun}; first: {_members(records, table, first)}"
        if last != first:
            yield f"{axis}: last: {_members(records, table, last)}"


def _members(records: np.ndarray, table: RankTable | None, ranks: Sequence[int]) -> str:
    shown = ranks if len(ranks) <= _SHOWN else (*ranks[: _SHOWN - 1], ranks[-1])
    texts = [_member(records, table, rank) for rank in shown]
    if len(shown) < len(ranks):
        texts.insert(-1, f"({len(ranks) - len(shown)} more)")
    return ", ".join(texts)


def _member(records: np.ndarray, table: RankTable | None, rank: int) -> str:
    each = records[rank]
    server = _host(records, rank) if table is None else plain_id(table.servers[each["server"]].server_id)
    device = "" if each["device"] == UNKNOWN else f" device {each['device']}"
    return f"rank {rank} {server}{device}"


def _spread_note(records: np.ndarray, plan: ParallelPlan) -> str | None:
    """Returns a note if tensor parallel groups that fit into one machine are spread over several."""
    per_machine = set(Counter(records["machine"].tolist()).values())
    if plan.tp == 1 or any(number % plan.tp for number in per_machine):
        return None
    machines = records["machine"].reshape(-1, plan.tp)
    spread = np.flatnonzero((machines != machines[:, :1]).any(1))
    if not len(spread):
        return None
    place = Mesh.of(plan).coordinates(int(spread[0]) * plan.tp)
    named = ", ".join(f"{name} {place.along(axis)}" for axis, name in COORDINATE_OF.items() if axis != "tp")
    return (
        f"{len(spread)} tensor parallel groups are spread over machines, though each would fit into one "
        f"(the first: {named}); every matrix product waits for the network: give the nodes their "
        "--node-rank in one order"
    )
