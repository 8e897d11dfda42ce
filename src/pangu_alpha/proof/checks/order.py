"""Checks, without running anything, that the collectives of all ranks meet.

A rank starts its collectives one after the other, and each returns when all ranks of its group have started
the same one; so a plan can hang although every rank's graph is right by itself. On a device, collectives of
several groups may overlap; ranks that reach their end with one collective at a time also do so with overlap,
because each of them then waits for less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pangu_alpha.proof.checks.dependences import partial_order
from pangu_alpha.proof.graph import mindir

# What all ranks of a meeting must agree on: the ranks that take part, and what they do.
Key = tuple[tuple[int, ...], str]


@dataclass(frozen=True)
class Meeting:
    """One collective of one rank.

    Args:
        ranks: All ranks that take part, ascending.
        what: What they do; it must be the same on all.
        where: Place in the rank's graph, for messages.
        ends: Sender and receiver of a transfer; None for other collectives.
    """

    ranks: tuple[int, ...]
    what: str
    where: str = ""
    ends: tuple[int, int] | None = None

    @property
    def key(self) -> Key:
        """What all ranks of the meeting must agree on."""
        return self.ranks, f"{self.ends[0]} sends {self.ends[1]} {self.what}" if self.ends else self.what


def meetings(model: mindir.Model, rank: int) -> tuple[Meeting, ...]:
    """The collectives of a rank's graph, in the order of a step."""
    return tuple(meeting(each, rank) for each in partial_order(model).collectives)


def meeting(each: mindir.Collective, rank: int) -> Meeting:
    """Converts a collective of a rank to a meeting.

    The two ends of a transfer must also agree on its phase and micro-batch, because the activations of all
    micro-batches have the same shape.
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
    """Describes which ranks wait for what; "" if all sequences run to their end.

    Args:
        sequences: Collectives of every rank, in order.
    """
    keys = {rank: [each.key for each in sequence] for rank, sequence in sequences.items()}
    done = walk(keys)
    stuck = [rank for rank in sorted(keys) if done[rank] < len(keys[rank])]
    return "; ".join(waits(keys, done, rank, sequences[rank][done[rank]].where) for rank in stuck)


def walk(keys: Mapping[int, Sequence[Key]]) -> dict[int, int]:
    """Returns how many of its collectives each rank finishes; takes time linear in their number.

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
    """Describes what a rank that did not reach its end waits for.

    Args:
        keys: Collectives of every rank, in order.
        done: The numbers from `walk`.
        where: Place in the rank's graph of the collective at which it waits.
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
