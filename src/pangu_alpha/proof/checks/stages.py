"""Checks whether the collectives of all ranks of a plan meet, given the graph of one rank per stage.

The ranks of a stage compile the same graph; only the ranks with which they communicate differ, and those
follow from their coordinates. The collectives of all ranks are therefore those of one rank of each stage,
moved over the grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.proof.checks.dependences import PartialOrder
from pangu_alpha.proof.checks.order import Key, Meeting, meeting, waits, walk

_NAMED = 3  # problems of one kind and stage that are listed; the others are only counted


@dataclass(frozen=True)
class Together:
    """The result of following all ranks of a plan together.

    Args:
        meetings: Number of collectives in a step, each counted once for all of its ranks.
        problems: Why the ranks would not all reach the end of a step, or which transfers go to a wrong rank.
            Empty if they meet in every order of execution that the graphs allow and that all ranks of a stage
            share.
        free: Number of pairs of collectives of one group on one rank, summed over the stages, that may run in
            either order. Only groups within a stage have such pairs.
    """

    ranks: int
    meetings: int
    problems: tuple[str, ...]
    free: int

    @property
    def meet(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def text(self) -> str:
        """One line for the result, and one for every problem."""
        lines = [f"stages meet: {'yes' if self.meet else 'NO'}, {self.ranks} ranks, {self.meetings} meetings"]
        if self.meet:
            lines.append(
                "order of execution: forced between stages; MindSpore chooses that of "
                f"{self.free} pairs within a stage, whose ranks all get the same graph"
            )
        return "\n".join([*lines, *(f"  {each}" for each in self.problems)])


def together(orders: Mapping[int, PartialOrder], mesh: Mesh) -> Together:
    """Follows all ranks through a step.

    Args:
        orders: Collectives of one rank of every stage, by rank.
    """
    stages = {mesh.stage_of(rank): rank for rank in orders}
    assert sorted(stages) == list(range(mesh.pp)), "one rank of every stage, please"
    templates = {rank: [meeting(each, rank) for each in order.collectives] for rank, order in orders.items()}
    keys: dict[int, list[Key]] = {}
    for stage in range(mesh.pp):
        moves = Moves(mesh, templates[stages[stage]])
        keys |= {rank: moves.keys(rank) for rank in mesh.stage_ranks(stage)}
    problems = [
        *(each for rank, order in orders.items() for each in astray(order, mesh, rank)),
        *_stuck(keys, templates),
        *(each for rank, order in orders.items() for each in unordered(order, mesh, rank)),
    ]
    return Together(
        ranks=mesh.size,
        meetings=round(sum(1 / len(key[0]) for own in keys.values() for key in own)),
        problems=tuple(problems),
        free=sum(order.free_in_groups() for order in orders.values()),
    )


class Moves:
    """The collectives of all ranks of a stage, derived from those of one of them.

    Args:
        template: Meetings of the one rank, in order.
    """

    def __init__(self, mesh: Mesh, template: Sequence[Meeting]) -> None:
        self.mesh = mesh
        kinds = {each.key: each for each in template}
        numbers = {key: number for number, key in enumerate(kinds)}
        self.kinds = list(kinds.values())
        self.order = [numbers[each.key] for each in template]
        # Ranks with the same coordinates on these axes have the same group: compute it once for all of them.
        self.axes = {group: mesh.shared_axes(group) for each in self.kinds for group in _groups(each)}
        self.moved: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[int, ...]] = {}

    def keys(self, rank: int) -> list[Key]:
        """The meetings of one of the stage's ranks, in order."""
        place = self.mesh.digits(rank)
        groups = {
            group: self._group(group, tuple(place[axis] for axis in axes), rank)
            for group, axes in self.axes.items()
        }
        moved = [
            Meeting(groups[each.ranks], each.what, ends=self._ends(each, groups)).key for each in self.kinds
        ]
        return [moved[number] for number in self.order]

    @staticmethod
    def _ends(of: Meeting, groups: Mapping[tuple[int, ...], tuple[int, ...]]) -> tuple[int, int] | None:
        if of.ends is None:
            return None
        sender, receiver = groups[of.ends]
        return sender, receiver

    def _group(self, group: tuple[int, ...], shared: tuple[int, ...], rank: int) -> tuple[int, ...]:
        key = (group, shared)
        if key not in self.moved:
            self.moved[key] = self.mesh.counterpart(group, rank)
        return self.moved[key]


def _groups(each: Meeting) -> tuple[tuple[int, ...], ...]:
    return (each.ranks, each.ends) if each.ends else (each.ranks,)


def astray(order: PartialOrder, mesh: Mesh, rank: int) -> Iterator[str]:
    """Yields transfers between wrong stages, or between ranks whose other coordinates differ."""
    for each in order.collectives:
        if each.peer is None:
            continue
        ends = meeting(each, rank).ends
        assert ends is not None  # because it has a peer
        sender, receiver = ends
        right = _receiver(each.phase, sender, mesh)
        if receiver != right:
            batch = f" of micro-batch {each.micro_batch}" if each.phase in ("forward", "backward") else ""
            should = "no rank" if right is None else f"rank {right} of stage {mesh.stage_of(right)}"
            yield (
                f"stage {mesh.stage_of(rank)}, rank {rank}: {each.operation}, {each.phase}{batch}: rank "
                f"{sender} of stage {mesh.stage_of(sender)} sends to rank {receiver} of stage "
                f"{mesh.stage_of(receiver)}, but should send to {should}"
            )


def _receiver(phase: str, sender: int, mesh: Mesh) -> int | None:
    """The rank that should get what `sender` sends; None if there is none.

    Activations go to the next stage and their gradients to the one before; the tied table goes from the first
    stage to the last, and its gradient back.
    """
    place, last = mesh.coordinates(sender), mesh.pp - 1
    stage = {
        "forward": place.stage + 1,
        "backward": place.stage - 1,
        "parameter": last if place.stage == 0 else -1,
        "gradient": 0 if place.stage == last else -1,
    }.get(phase, -1)
    return mesh.rank(place.data, stage, place.tensor) if 0 <= stage <= last else None


def _stuck(keys: Mapping[int, Sequence[Key]], templates: Mapping[int, Sequence[Meeting]]) -> Iterator[str]:
    """Yields what each compiled rank waits for; if none of these is stuck, what the first stuck rank does."""
    done = walk(keys)
    stuck = [rank for rank in keys if done[rank] < len(keys[rank])]
    for rank in [each for each in stuck if each in templates] or stuck[:1]:
        where = templates[rank][done[rank]].where if rank in templates else ""
        yield waits(keys, done, rank, where)


def unordered(order: PartialOrder, mesh: Mesh, rank: int) -> Iterator[str]:
    """Yields pairs of collectives with other stages whose order the rank's graph does not force.

    Two stages have different graphs, so the compiler may choose different orders for them.
    """
    stage = mesh.stage_of(rank)
    shared = [
        place
        for place, each in enumerate(order.collectives)
        if any(mesh.stage_of(other) != stage for other in (*each.ranks, each.peer or rank))
    ]
    pairs = order.free_pairs(shared)
    for pair in pairs[:_NAMED]:
        first, second = (meeting(order.collectives[place], rank) for place in pair)
        more = f" ({len(pairs)} such pairs)" if pair == pairs[0] and len(pairs) > 1 else ""
        yield (
            f"stage {stage}, rank {rank}: nothing orders {first.key[1]} in {first.where} and "
            f"{second.key[1]} in {second.where}{more}; another stage may run them the other way round and "
            "wait for ever"
        )
