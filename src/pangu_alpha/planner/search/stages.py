"""The best layers and recompute modes for every stage of one grid, with a lower bound on the time.

With M micro-batches and P stages of forward and backward times f and b, a 1F1B step takes at least sum(f + b)
+ max_s((M - 1) b_s + (M - P + s) f_s): stage s cannot start its first backward pass before all stages have
run a forward pass and those behind it a backward pass, and it finishes its own remaining work before the
stages in front of it finish. Dynamic programming finds the layers for which this bound is least. Starting
from those, and from even layers, single layers are moved between stages while the simulated schedule gets
faster; the bound tells how far the result can be from the best. In one stage the fastest mix of recompute
modes that fits is best, because more recompute never saves more in another term than it adds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from pangu_alpha.config.parallel import RECOMPUTE
from pangu_alpha.planner.cost.cost import CostModel, StageCost, Step
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.cost.kept import layer_activations, layer_copies, mask_bytes
from pangu_alpha.planner.cost.memory import again, in_flight, memory_of
from pangu_alpha.planner.cost.schedule import duration

_CLOSE = 1e-3  # a plan whose relative distance to its lower bound is smaller is not improved further
_WAYS = 20_000  # ways to give layers to stages that dynamic programming examines at most
_GAIN = 0.1  # share of the time that moving layers is assumed to save at most; more was never observed
_MOVES = 8  # single layers moved one after another from one of the slowest stages to one of the fastest


@dataclass(frozen=True)
class Stages:
    """What every stage of a pipeline does, and what that costs.

    Args:
        counts: For each stage, the number of its layers by recompute mode.
        seconds: Seconds of a step, with its schedule simulated.
        least: Lower bound on the seconds of a step for any layers and recompute modes on this grid.
        memory: Bytes on the fullest device.
    """

    counts: tuple[Mapping[str, int], ...]
    seconds: float
    least: float
    memory: int

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers of each stage."""
        return tuple(sum(counts.values()) for counts in self.counts)


class _Choice(NamedTuple):
    """The recompute modes chosen for a stage with a given number of layers, and their cost."""

    cost: StageCost
    counts: Mapping[str, int]
    memory: int


class _Label(NamedTuple):
    """A way to fill the first stages: the terms of its lower bound, and the label it was extended from."""

    total: float
    steady: float
    once: float
    choice: _Choice | None
    before: _Label | None

    @property
    def seconds(self) -> float:
        """The lower bound for the stages filled so far."""
        return self.total + self.steady + self.once


class Pipeline:
    """Finds the best layers and recompute modes for one grid, micro-batch size, sharding and placement.

    Args:
        job: The job; its own layers per stage and its recompute do not matter.
        capacity: Bytes that a device may use; by default all of its memory.
    """

    def __init__(
        self,
        model: CostModel,
        job: Job,
        capacity: float | None = None,
        modes: Collection[str] = RECOMPUTE,
    ) -> None:
        self.job, self.device = job, model.cluster.device
        self.capacity = self.device.memory if capacity is None else capacity
        self.stack = model.stack
        self.step = Step(model, job)
        self.modes = modes
        self.kept = {
            mode: layer_activations(job, mode, self.stack) + layer_copies(job, mode, self.stack)
            for mode in RECOMPUTE
        }
        self._layers: dict[str, float] = {}
        self._shared: dict[tuple[bool, bool], tuple[float, float]] = {}
        self.fastest = min(modes, key=self._layer)
        self.layer = self._layer(self.fastest)
        self._choices: dict[tuple[int, int], _Choice | None] = {}
        self._fixed_bytes: dict[tuple[bool, bool, int], float] = {}

    def _layer(self, mode: str) -> float:
        """Seconds of both passes through a layer."""
        if mode not in self._layers:
            both = self.step.forward_layer.seconds + self.step.backward_layer(mode).seconds
            self._layers[mode] = both
        return self._layers[mode]

    def least(self, once: bool = True) -> float:
        """Seconds that no choice of layers and recompute can undercut; ignores memory.

        Some stage has at least the average number of layers, and every layer lies in some stage. `once`
        includes what happens once a step: the gradients' traffic and the update.
        """
        job = self.job
        fewest = -(-job.shape.layers // job.pp)
        cost = self.step.stage(job.pp == 1, job.pp == 1, {self.fastest: fewest}, once)
        steady = (job.micro_batches - 1) * cost.backward + (job.micro_batches - job.pp) * cost.forward
        layers = job.shape.layers * max(self.layer, (cost.work.seconds + cost.gathers) / fewest)
        if job.pp == 1:
            layers = cost.busy - self._ends
        rest = cost.traffic + cost.optimizer if once else 0.0
        return self._ends + layers + steady + rest

    @cached_property
    def _ends(self) -> float:
        """Seconds of both passes through what the first and the last stage have in addition to layers."""
        ends = self.step.stage(True, self.job.pp == 1, {}, once=False).work.seconds
        if self.job.pp > 1:
            ends += self.step.stage(False, True, {}, once=False).work.seconds
        return ends

    @property
    def _total(self) -> float:
        """Least seconds of both passes through all stages."""
        return self.job.shape.layers * self.layer + self._ends

    def best(self, bound: float = math.inf) -> Stages | None:
        """Finds the fastest stages that fit into memory; None if none takes at most `bound` seconds."""
        least = self.least()
        if least > bound:
            return None
        layers = self._level()
        if layers is None:
            return None
        seconds = self.seconds(layers)
        if seconds > least * (1 + _CLOSE):
            layers, least = self._from_bound(layers, min(bound, seconds), least)
            if self.seconds(layers) * (1 - _GAIN) > bound:
                return None
            layers, seconds = self._moved(layers)
        return None if seconds > bound else self._stages(layers, seconds, min(least, seconds))

    def _from_bound(
        self, layers: tuple[int, ...], bound: float, least: float
    ) -> tuple[tuple[int, ...], float]:
        """Returns better layers from dynamic programming, if it finds any, and the best lower bound known."""
        try:
            lowest = self._lowest(bound)
        except _TooManyError:
            return layers, least
        if lowest is None:
            return layers, max(least, bound)
        return min(layers, _layers(lowest), key=self.seconds), max(least, lowest.seconds)

    def seconds(self, layers: Sequence[int]) -> float:
        """Simulated seconds of a step with these layers per stage; infinite if they do not fit."""
        costs = []
        for stage, count in enumerate(layers):
            if (choice := self.choice(stage, count)) is None:
                return math.inf
            costs.append(choice.cost)
        forward, backward = [cost.forward for cost in costs], [cost.backward for cost in costs]
        played = duration(forward, backward, self.job.micro_batches, self.job.schedule)
        return played + max(cost.traffic for cost in costs) + max(cost.optimizer for cost in costs)

    def _stages(self, layers: Sequence[int], seconds: float, least: float) -> Stages:
        choices = [self._fitting(stage, count) for stage, count in enumerate(layers)]
        counts = tuple(choice.counts for choice in choices)
        return Stages(counts, seconds, least, max(choice.memory for choice in choices))

    def _level(self) -> tuple[int, ...] | None:
        """Layers as even as possible, or as even as memory allows; None if they do not fit."""
        if all(self.choice(stage, layers) for stage, layers in enumerate(self.job.layers)):
            return self.job.layers
        limits = [self._limit(stage, math.inf, layers) for stage, layers in enumerate(self.job.layers)]
        over = sum(limits) - self.job.shape.layers
        if over < 0 or min(limits) == 0:
            return None
        highest = max(limits)
        while sum(min(limit, highest) for limit in limits) - self.job.shape.layers >= self.job.pp:
            highest -= 1
        layers = [min(limit, highest) for limit in limits]
        for _ in range(sum(layers) - self.job.shape.layers):
            layers[layers.index(max(layers))] -= 1
        return tuple(layers)

    def _moved(self, layers: Sequence[int]) -> tuple[tuple[int, ...], float]:
        """Moves single layers while that saves time; returns the stages' layers and a step's seconds."""
        layers, seconds = tuple(layers), self.seconds(layers)
        tried = 4 if self.job.pp <= 32 else 2  # simulating many stages is slow
        for _ in range(_MOVES):
            busy = [self._fitting(stage, count).cost.busy for stage, count in enumerate(layers)]
            order = sorted(range(self.job.pp), key=busy.__getitem__)
            moves = itertools.product(reversed(order[-tried:]), order[:tried])
            ways = [_move(layers, *move) for move in moves if move[0] != move[1] and layers[move[0]] > 1]
            faster, best = min(((self.seconds(way), way) for way in ways), default=(seconds, layers))
            if faster >= seconds:
                break
            layers, seconds = best, faster
        return layers, seconds

    def _weight(self, stage: int, cost: StageCost) -> float:
        """Seconds that a stage adds, at least, to the time of one micro-batch through all stages."""
        job = self.job
        return (job.micro_batches - 1) * cost.backward + (job.micro_batches - job.pp + stage) * cost.forward

    def _limit(self, stage: int, slowest: float, guess: int) -> int:
        """Largest number of layers that fit and weigh at most `slowest`; searched outwards from `guess`."""

        def possible(layers: int) -> bool:
            choice = self.choice(stage, layers)
            return choice is not None and self._weight(stage, choice.cost) <= slowest

        low, high, stride = 0, self.job.shape.layers - self.job.pp + 2, 1
        while low < guess < high:
            low, high = (guess, high) if possible(guess) else (low, guess)
            guess, stride = (low + stride if low == guess else high - stride), 2 * stride
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if possible(middle) else (low, middle)
        return low

    def _lowest(self, bound: float) -> _Label | None:
        """The layers whose lower bound is least; None if that is above `bound`.

        Raises:
            _TooManyError: If there are too many ways to give layers to the stages.
        """
        total = self.job.shape.layers
        slowest = bound - total * self.layer - self._ends
        limits = [self._limit(stage, slowest, layers) for stage, layers in enumerate(self.job.layers)]
        spare = sum(limits) - total
        if min(limits) == 0 or spare < 0:
            return None
        if (spare + 1) * sum(min(spare, limit) for limit in limits) > _WAYS:
            raise _TooManyError
        after = sum(limits)
        ways: dict[int, list[_Label]] = {0: [_START]}
        for stage, limit in enumerate(limits):
            after -= limit
            left = self.job.pp - stage - 1
            longer: dict[int, list[_Label]] = {}
            for used, labels in ways.items():
                for layers in range(max(1, total - after - used), min(limit, total - left - used) + 1):
                    choice = self._fitting(stage, layers)
                    weight = self._weight(stage, choice.cost)
                    rest = (total - used - layers) * self.layer
                    for label in labels:
                        new = _extend(label, choice, weight)
                        if new.seconds + rest <= bound:
                            _keep(longer.setdefault(used + layers, []), new)
            ways = longer
        return min(ways.get(total, []), key=lambda label: label.seconds, default=None)

    def _fitting(self, stage: int, layers: int) -> _Choice:
        """Like `choice`, for a number of layers that is known to fit."""
        found = self.choice(stage, layers)
        assert found is not None, (stage, layers)
        return found

    def choice(self, stage: int, layers: int) -> _Choice | None:
        """The fastest mix of recompute modes with which a stage fits; None if none does."""
        key = (stage, layers)
        if key not in self._choices:
            self._choices[key] = self._choose(stage, layers)
        return self._choices[key]

    def _choose(self, stage: int, layers: int) -> _Choice | None:
        """Computes `choice` anew."""
        first, last = stage == 0, stage == self.job.pp - 1
        room = self.capacity - self._fixed(first, last, layers)
        counts = self._mix(layers, room, in_flight(self.job, stage))
        if counts is None:
            return None
        memory = self.capacity - room + self._kept(counts, in_flight(self.job, stage))
        return _Choice(self.step.stage(first, last, counts), counts, round(memory))

    def _fixed(self, first: bool, last: bool, layers: int) -> float:
        """Bytes of a stage without those that its layers keep for the backward pass."""
        key = (first, last, layers)
        if key not in self._fixed_bytes:
            stage, bare = (0 if first else self.job.pp - 1 if last else 1), {"none": layers}
            whole = memory_of(self.job, stage, bare, self.device, self.stack).total
            self._fixed_bytes[key] = whole - self._kept(bare, in_flight(self.job, stage))
        return self._fixed_bytes[key]

    def _kept(self, counts: Mapping[str, int], times: float) -> float:
        """Bytes that the layers keep, plus those of the layer that is being recomputed."""
        kept = sum(self.kept[mode] * count for mode, count in counts.items())
        selective, full = counts.get("selective", 0) > 0, counts.get("full", 0) > 0
        if (selective, full) not in self._shared:
            some = {"selective": int(selective), "full": int(full), "none": 1}
            self._shared[selective, full] = (
                mask_bytes(self.job, some, self.stack),
                again(self.job, some, self.stack),
            )
        mask, repeated = self._shared[selective, full]
        return (kept + mask) * times + repeated

    def _mix(self, layers: int, room: float, times: float) -> dict[str, int] | None:
        """The mix of recompute modes that costs the least time; None if none fits into `room` bytes."""
        if "none" in self.modes and self._kept({"none": layers}, times) <= room:
            return {"none": layers}
        mixes = []
        for selective in self._selective(layers):
            full = self._full(layers, selective, room, times)
            counts = {"none": layers - selective - full, "selective": selective, "full": full}
            fits = counts["none"] >= 0 and self._kept(counts, times) <= room
            if fits and (not full or "full" in self.modes):
                mixes.append({mode: count for mode, count in counts.items() if count})
        if not mixes:
            return None
        return min(mixes, key=lambda mix: sum(self._layer(mode) * count for mode, count in mix.items()))

    def _full(self, layers: int, selective: int, room: float, times: float) -> int:
        """Fewest layers that must be fully recomputed, given how many recompute only their attention."""
        rest = layers - selective
        if "none" not in self.modes:
            return rest
        if self._kept({"none": rest, "selective": selective}, times) <= room:
            return 0
        saved = (self.kept["none"] - self.kept["full"]) * times
        if not rest or saved <= 0:
            return 0
        one = {"none": rest - 1, "selective": selective, "full": 1}
        return 1 + max(0, math.ceil((self._kept(one, times) - room) / saved))

    def _selective(self, layers: int) -> range:
        """Possible numbers of layers that recompute only their attention; only 0 if that saves nothing."""
        if self.modes == ("selective",):
            return range(layers, layers + 1)
        useful = "selective" in self.modes and self.kept["selective"] < self.kept["none"]
        return range(layers + 1 if useful else 1)


class _TooManyError(Exception):
    """There are more ways to give layers to stages than the search examines."""


_START = _Label(0.0, 0.0, 0.0, None, None)


def _extend(label: _Label, choice: _Choice, steady: float) -> _Label:
    cost = choice.cost
    return _Label(
        label.total + cost.busy,
        max(label.steady, steady),
        max(label.once, cost.traffic + cost.optimizer),
        choice,
        label,
    )


def _layers(label: _Label | None) -> tuple[int, ...]:
    """Layers of all stages, the first stage first."""
    layers = []
    while label is not None and label.choice is not None:
        layers.append(sum(label.choice.counts.values()))
        label = label.before
    return tuple(reversed(layers))


def _move(layers: tuple[int, ...], source: int, target: int) -> tuple[int, ...]:
    moved = list(layers)
    moved[source] -= 1
    moved[target] += 1
    return tuple(moved)


def _keep(labels: list[_Label], new: _Label) -> None:
    """Adds a label unless another is as good in every term; removes those that are now useless."""
    if any(_as_good(label, new) for label in labels):
        return
    labels[:] = [label for label in labels if not _as_good(new, label)]
    labels.append(new)


def _as_good(one: _Label, other: _Label) -> bool:
    return one.steady <= other.steady and one.once <= other.once and one.total <= other.total
