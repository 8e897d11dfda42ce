"""Checks, without running anything, that the collectives of all ranks meet.

A rank starts its collectives one after the other, and each returns when all ranks of its group have started
the same; so a plan can hang although every rank's graph is right by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pangu_alpha.proof import mindir


@dataclass(frozen=True)
class Meeting:
    """One collective of one rank.

    Args:
        ranks: All that take part, ascending.
        what: What they do; it must be the same on all.
        where: Where in the rank's graph, for messages.
    """

    ranks: tuple[int, ...]
    what: str
    where: str = ""


def meetings(model: mindir.Model, rank: int) -> tuple[Meeting, ...]:
    """A rank's collectives in the order of a step.

    Args:
        model: The rank's graph as one function (inline.inline).
        rank: The rank.
    """
    assert len(model.functions) == 1, "inline the graph first"
    return tuple(_meeting(each, rank) for each in mindir.collectives(model))


def deadlock(sequences: Mapping[int, Sequence[Meeting]]) -> str:
    """Says which ranks wait for what, or "" where all sequences run to their end.

    Args:
        sequences: Collectives of every rank, in order.
    """
    done = dict.fromkeys(sequences, 0)
    candidates = set(sequences)
    while candidates:
        rank = candidates.pop()
        if done[rank] == len(sequences[rank]):
            continue
        meeting = sequences[rank][done[rank]]
        if all(_next(sequences, done, other) == (meeting.ranks, meeting.what) for other in meeting.ranks):
            for other in meeting.ranks:
                done[other] += 1
            candidates.update(meeting.ranks)
    stuck = [rank for rank in sorted(sequences) if done[rank] < len(sequences[rank])]
    return "; ".join(_waits(sequences, done, rank) for rank in stuck)


def _meeting(each: mindir.Collective, rank: int) -> Meeting:
    shape = "x".join(map(str, each.payload.shape)) or "scalar"
    if each.peer is None:
        what = f"{each.operation} {each.reduction} {shape} {each.payload.dtype}"
        return Meeting(tuple(sorted(each.ranks)), " ".join(what.split()), each.scope)
    sender, receiver = (rank, each.peer) if each.operation == "Send" else (each.peer, rank)
    what = f"{sender} sends {receiver} {shape} {each.payload.dtype}"
    return Meeting(tuple(sorted((rank, each.peer))), what, each.scope)


def _next(
    sequences: Mapping[int, Sequence[Meeting]], done: Mapping[int, int], rank: int
) -> tuple[tuple[int, ...], str] | None:
    if rank not in sequences or done[rank] == len(sequences[rank]):
        return None
    meeting = sequences[rank][done[rank]]
    return meeting.ranks, meeting.what


def _waits(sequences: Mapping[int, Sequence[Meeting]], done: Mapping[int, int], rank: int) -> str:
    meeting = sequences[rank][done[rank]]
    others = []
    for other in meeting.ranks:
        there = _next(sequences, done, other)
        if there != (meeting.ranks, meeting.what):
            others.append(f"{other} (at {'its end' if there is None else there[1]})")
    place = f" in {meeting.where}" if meeting.where else ""
    count = f"collective {done[rank] + 1} of {len(sequences[rank])}"
    blame = f"waits for rank {', '.join(others)}" if others else "could go on"
    return f"rank {rank}, {count}, {meeting.what} of {list(meeting.ranks)}{place}, {blame}"
