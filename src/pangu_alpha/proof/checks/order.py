"""Checks, without running anything, that the collectives of all ranks meet.

A rank starts its collectives one after the other, and each returns when all ranks of its group have started
the same; so a plan can hang although every rank's graph is right by itself. On a device, collectives of
several groups may overlap; ranks that come to their end one collective at a time do so then, too, since each
of them waits for less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pangu_alpha.proof.checks.dependences import partial_order
from pangu_alpha.proof.graph import mindir

# What all ranks of a meeting must agree on: who takes part, and what they do.
Key = tuple[tuple[int, ...], str]


@dataclass(frozen=True)
class Meeting:
    """One collective of one rank.

    Args:
        ranks: All that take part, ascending.
        what: What they do; it must be the same on all.
        where: Where in the rank's graph, for messages.
        ends: Sender and receiver of a transfer; None for other collectives.
    """

    ranks: tuple[int, ...]
    what: str
    where: str = ""
    ends: tuple[int, int] | None = None

    @property
    def key(self) -> Key:
        """What its ranks must agree on."""
        return self.ranks, f"{self.ends[0]} sends {self.ends[1]} {self.what}" if self.ends else self.what


def meetings(model: mindir.Model, rank: int) -> tuple[Meeting, ...]:
    """A rank's collectives in the order of a step.

    Args:
        model: The rank's graph.
        rank: The rank.
    """
    return tuple(meeting(each, rank) for each in partial_order(model).collectives)


def meeting(each: mindir.Collective, rank: int) -> Meeting:
    """A collective of a rank as a meeting.

    The two ends of a transfer must agree on its phase and micro-batch as well, since activations of all
    micro-batches have one shape.
    """
    shape = "x".join(map(str, each.payload.shape)) or "scalar"
    if each.peer is None:
        what = f"{each.operation} {each.reduction} {shape} {each.payload.dtype}"
        return Meeting(tuple(sorted(each.ranks)), " ".join(what.split()), each.scope)
    what = f"{shape} {each.payload.dtype}, {each.phase}"
    if each.phase in ("forward", "backward"):
        what += f" of micro-batch {each.micro_batch}"
    ends = (rank, each.peer) if each.operation == "Send" else (each.peer, rank)
    return Meeting(tuple(sorted(ends)), what, each.scope, ends)


def deadlock(sequences: Mapping[int, Sequence[Meeting]]) -> str:
    """Says which ranks wait for what, or "" where all sequences run to their end.

    Args:
        sequences: Collectives of every rank, in order.
    """
    keys = {rank: [each.key for each in sequence] for rank, sequence in sequences.items()}
    done = walk(keys)
    stuck = [rank for rank in sorted(keys) if done[rank] < len(keys[rank])]
    return "; ".join(waits(keys, done, rank, sequences[rank][done[rank]].where) for rank in stuck)


def walk(keys: Mapping[int, Sequence[Key]]) -> dict[int, int]:
    """How many of its collectives each rank comes to finish; the time is linear in their number.

    Args:
        keys: Collectives of every rank, in order.
    """
    done = dict.fromkeys(keys, 0)
    waiting: dict[Key, list[int]] = {}
    moving = list(keys)
    while moving:
        rank = moving.pop()
        own, place = keys[rank], done[rank]
        if place == len(own):
            continue
        key = own[place]
        ranks = key[0]
        if rank not in ranks:
            continue
        there = waiting.setdefault(key, [])
        there.append(rank)
        if len(there) == len(ranks):
            del waiting[key]
            for each in there:
                done[each] += 1
            moving += there
    return done


def waits(keys: Mapping[int, Sequence[Key]], done: Mapping[int, int], rank: int, where: str = "") -> str:
    """What a rank that did not come to its end waits for.

    Args:
        keys: Collectives of every rank, in order.
        done: What `walk` gave.
        rank: Which.
        where: Where its graph has the collective that it stands at.
    """
    ranks, what = keys[rank][done[rank]]
    place = f" in {where}" if where else ""
    stands = f"rank {rank}, collective {done[rank] + 1} of {len(keys[rank])}, {what} of {list(ranks)}{place}"
    if rank not in ranks:
        return f"{stands}, is not of that group"
    others = []
    for other in ranks:
        there = keys[other][done[other]] if other in keys and done[other] < len(keys[other]) else None
        if there != (ranks, what):
            others.append(f"{other} (at {'its end' if there is None else there[1]})")
    return f"{stands}, waits for rank {', '.join(others)}"
