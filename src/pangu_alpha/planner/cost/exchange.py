"""Seconds that the ranks of a job spend exchanging data in a step, on the links that the data crosses.

`Partitioned` prices, call by call, what MindSpore's partitioner places for this project's network
(planner.cost.demands). `General` uses the usual terms for other software: two sums per layer, one message of
gradients, one of the tied table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple, Protocol

from pangu_alpha.parallel.mesh import AXES
from pangu_alpha.planner.cost.collectives import Links
from pangu_alpha.planner.cost.demands import Calls, Demands, describes
from pangu_alpha.planner.cost.hardware import Stack
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.proof.checks.traffic import (
    ACTIVATION,
    GATHERED,
    INPUTS,
    OVERFLOW,
    SCATTERED,
    SUMMED,
    TABLE,
    WORLD,
    Call,
)

_WORD = 2  # bytes of an activation or a weight in 16 bits
_LAYER_TENSORS = 12  # parameters of a layer, gathered one by one where a stack does not fuse them


class Stage(NamedTuple):
    """What a stage's traffic depends on.

    Args:
        first: Whether the stage embeds the tokens.
        last: Whether the stage computes logits and loss.
        counts: Number of its layers by recompute mode.
        parameters: Number of parameters on one of its ranks, before they are sharded over dp.
    """

    first: bool
    last: bool
    counts: Mapping[str, int]
    parameters: int


class Exchange(Protocol):
    """Traffic of a job's ranks. Unit of all times: seconds."""

    @property
    def forward_layer(self) -> float:
        """A layer's tensor parallel collectives in the forward pass of a micro-batch."""

    def backward_layer(self, mode: str) -> float:
        """The same in the backward pass, including what a recompute mode repeats."""

    def ends(self, first: bool, last: bool) -> tuple[float, float]:
        """Collectives before and after the layers, in the forward and the backward pass of a micro-batch."""

    def transfers(self, first: bool, last: bool) -> tuple[float, float]:
        """Sending a micro-batch's activations to the next stage, and their gradient to the previous one."""

    def gathers(self, stage: Stage, forward: float, backward: float) -> tuple[float, float]:
        """Traffic of sharded weights and gradients that a micro-batch's two passes do not hide.

        Args:
            forward: Seconds of the stage's forward pass, behind which traffic can hide.
            backward: Seconds of the stage's backward pass.
        """

    def once(self, stage: Stage, forward: float, backward: float) -> float:
        """Traffic that happens once a step: gradients, weights gathered after the update, the tied table.

        Args:
            forward: Seconds of the stage's forward pass, behind which gathers of weights can hide.
            backward: Seconds of the stage's backward pass, behind which gradients can hide.
        """


def exchange_of(links: Links, stack: Stack, overlap: float, job: Job, saturates: bool) -> Exchange:
    """Chooses the class that counts a job's traffic: `Partitioned` if its formulas apply, else `General`.

    Args:
        overlap: Share of a computation behind which traffic can hide.
        saturates: Whether overflow is detected by the chip's float status.
    """
    if stack.partitioned and describes(job):
        return Partitioned(links, overlap, Demands(job, saturates), job)
    return General(links, stack, overlap, job)


_Seconds = defaultdict[tuple[str, str], float]  # seconds of a step by (purpose, phase)


class Partitioned:
    """The calls of MindSpore's partitioner, each priced by the axis that it crosses.

    Args:
        overlap: Share of a computation behind which gradients and weights can hide.
    """

    def __init__(self, links: Links, overlap: float, demands: Demands, job: Job) -> None:
        self.links, self.overlap, self.demands, self.job = links, overlap, demands, job
        self._fans: dict[str, tuple[float, ...]] = {}
        self._prices: dict[Call, float] = {}
        self._passes: dict[tuple[bool, bool], _Seconds] = {}
        self._updates: dict[tuple[bool, bool] | str, _Seconds] = {}

    @cached_property
    def forward_layer(self) -> float:
        """See Exchange."""
        return self._pass(self._sums(self.demands.passes_of_layer("none")), "forward")

    def backward_layer(self, mode: str) -> float:
        """See Exchange."""
        found = self._sums(self.demands.passes_of_layer(mode))
        return self._pass(found, "recompute") + self._pass(found, "backward")

    def ends(self, first: bool, last: bool) -> tuple[float, float]:
        """See Exchange."""
        found = self._of_ends(first, last)
        return self._pass(found, "forward"), self._pass(found, "backward")

    def transfers(self, first: bool, last: bool) -> tuple[float, float]:
        """See Exchange. Only sends are counted, because a rank receives while another one sends."""
        found = self._of_ends(first, last)
        times = self.job.micro_batches
        return found[ACTIVATION, "forward"] / times, found[ACTIVATION, "backward"] / times

    def gathers(self, stage: Stage, forward: float, backward: float) -> tuple[float, float]:
        """See Exchange."""
        if self.job.sharding not in ("level2", "level3"):
            return 0.0, 0.0
        micro_batches = self.job.micro_batches
        ahead, back = 0.0, self._of_stage(stage, SCATTERED)
        if self.job.sharding == "level3":
            gathered = self._of_stage(stage, GATHERED)
            bare = stage._replace(counts={"none": sum(stage.counts.values())})
            # With micro-batches, nearly all weights are gathered for both passes; without them, only the
            # weights of recomputed layers are gathered a second time.
            ahead = gathered / 2 if micro_batches > 1 else self._of_stage(bare, GATHERED)
            back += gathered - ahead
        return (
            max(0.0, ahead / micro_batches - self.overlap * forward),
            max(0.0, back / micro_batches - self.overlap * backward),
        )

    def once(self, stage: Stage, forward: float, backward: float) -> float:
        """See Exchange."""
        level = self.job.sharding
        weights = 0.0 if level == "level3" else self._of_stage(stage, GATHERED)
        gradients = 0.0 if level in ("level2", "level3") else self._of_stage(stage, SCATTERED)
        gradients += self._of_stage(stage, SUMMED)
        rest = sum(self._of_stage(stage, purpose) for purpose in (TABLE, WORLD, OVERFLOW))
        rest += self._of_ends(stage.first, stage.last)[INPUTS, "forward"]
        shown = max(0.0, weights - self.overlap * forward) + max(0.0, gradients - self.overlap * backward)
        return shown + rest

    def _pass(self, found: _Seconds, phase: str) -> float:
        """Seconds of one micro-batch in a phase, without the calls that `transfers` and `once` count."""
        others = (ACTIVATION, INPUTS)
        seconds = sum(each for (what, when), each in found.items() if when == phase and what not in others)
        return seconds / self.job.micro_batches

    def _of_ends(self, first: bool, last: bool) -> _Seconds:
        if (first, last) not in self._passes:
            self._passes[first, last] = self._sums(self.demands.passes(first, last))
        return self._passes[first, last]

    def _of_stage(self, stage: Stage, purpose: str) -> float:
        """Seconds of a stage's updates that serve a purpose."""
        seconds = self._update((stage.first, stage.last), purpose)
        for mode, layers in stage.counts.items():
            seconds += layers * self._update(mode, purpose)
        return seconds

    def _update(self, part: tuple[bool, bool] | str, purpose: str) -> float:
        """Seconds of updates: of a stage's ends if `part` is (first, last), of a layer if it is a mode."""
        if part not in self._updates:
            demands = self.demands
            calls = demands.updates_of_layer(part) if isinstance(part, str) else demands.updates(*part)
            self._updates[part] = self._sums(calls)
        return sum(each for (what, _), each in self._updates[part].items() if what == purpose)

    def _sums(self, calls: Calls) -> _Seconds:
        found: _Seconds = defaultdict(float)
        for kind, times in calls.items():
            if kind.what != ACTIVATION or kind.call.operation == "Send":
                found[kind.what, kind.call.phase] += times * self._price(kind.call)
        return found

    def _price(self, call: Call) -> float:
        """Seconds of one call."""
        if call not in self._prices:
            self._prices[call] = self._priced(call)
        return self._prices[call]

    def _priced(self, call: Call) -> float:
        if call.operation in ("Send", "Receive"):
            stages = self.job.pp - 1 if call.axis == "pp pair" else 1
            return self.links.send(call.bytes, self.job.stride("pp") * stages)
        cost = self.links.reduce if call.operation == "AllReduce" else self.links.gather
        return cost(call.bytes, self._fan(call.axis))

    def _fan(self, axis: str) -> tuple[float, ...]:
        """The fan of the group along an axis, or along several as named by proof.checks.traffic.axis_name."""
        if axis not in self._fans:
            names = AXES if axis == "world" else axis.split("+")
            lines = tuple((getattr(self.job, name), self.job.stride(name)) for name in names)
            self._fans[axis] = self.links.fan_of(lines)
        return self._fans[axis]


class General:
    """The usual terms: two sums per layer, one message of gradients, one of the tied table.

    Args:
        overlap: Share of a computation behind which gradients and weights can hide.
    """

    def __init__(self, links: Links, stack: Stack, overlap: float, job: Job) -> None:
        self.links, self.stack, self.overlap, self.job = links, stack, overlap, job

    @cached_property
    def forward_layer(self) -> float:
        """See Exchange. Two sums over tp; sequence parallelism replaces each by a gather and a scatter."""
        if self.job.tp == 1:
            return 0.0
        fan = self.links.fan(self.job.tp, self.job.stride("tp"))
        return 2 * self.links.reduce(self.job.tokens * self.job.shape.hidden * _WORD, fan)

    def backward_layer(self, mode: str) -> float:
        """See Exchange."""
        return self.forward_layer * (2 - self._spared if mode == "full" else 1)

    def ends(self, first: bool, last: bool) -> tuple[float, float]:
        """See Exchange. Left out, because they are small compared with the layers."""
        return 0.0, 0.0

    def transfers(self, first: bool, last: bool) -> tuple[float, float]:
        """See Exchange. The sum over all chunks of an interleaved schedule."""
        return 0.0 if last else self._transfer, 0.0 if first else self._transfer

    def gathers(self, stage: Stage, forward: float, backward: float) -> tuple[float, float]:
        """See Exchange."""
        job = self.job
        if job.dp == 1 or job.sharding not in ("level2", "level3"):
            return 0.0, 0.0
        weights = self._gather_weights(stage)
        scatter = weights * self.stack.gradient_bytes / _WORD
        again = weights if job.sharding == "level3" else 0.0
        shown = max(0.0, again - self.overlap * forward)
        return shown, max(0.0, again + scatter - self.overlap * backward)

    def once(self, stage: Stage, forward: float, backward: float) -> float:
        """See Exchange."""
        tied = self._tied if stage.first or stage.last else 0.0
        return self._gradients(stage, forward, backward) + tied

    def _gradients(self, stage: Stage, forward: float, backward: float) -> float:
        """Traffic of gradients, and of the weights that are gathered after the update."""
        job, links = self.job, self.links
        if job.dp == 1 or job.sharding == "level3":
            return 0.0
        gradients = self.stack.gradient_bytes * stage.parameters
        if job.sharding == "optimizer":
            return links.reduce(gradients, self._fan_of_data) + self._gather_weights(stage)
        if job.sharding == "none":
            return max(0.0, links.reduce(gradients, self._fan_of_data) - self.overlap * backward)
        gathered = max(0.0, self._gather_weights(stage) - self.overlap * forward)
        if job.sharding == "level2":
            return gathered
        scattered = links.gather(gradients, self._fan_of_data)
        return gathered + max(0.0, scattered - self.overlap * backward)

    @property
    def _spared(self) -> float:
        """Share of a layer's sums that recomputation leaves out because no derivative needs the last sum.

        Without sequence parallelism this is one of two sums; with it, one scatter of two gathers and two
        scatters.
        """
        if self.stack.repeats_last:
            return 0.0
        return 0.25 if self.job.sequence_parallel else 0.5

    @cached_property
    def _transfer(self) -> float:
        job = self.job
        if job.pp == 1:
            return 0.0
        size: float = job.tokens * job.shape.hidden * _WORD
        if job.sequence_parallel or self.stack.split_transfers:
            size /= job.tp
        times = job.chunks * (1 if self.stack.paired_transfers else 2)
        return times * self.links.send(size, job.stride("pp"))

    @cached_property
    def _fan_of_data(self) -> tuple[float, ...]:
        return self.links.fan(self.job.dp, self.job.stride("dp"))

    def _gather_weights(self, stage: Stage) -> float:
        """Seconds to gather a stage's weights over dp, in one message per layer or per parameter."""
        per_layer = 1 if self.stack.gathers == "layer" else _LAYER_TENSORS
        messages = max(1, sum(stage.counts.values()) * per_layer)
        size = _WORD * stage.parameters / self.stack.gather_share
        return messages * self.links.gather(size / messages, self._fan_of_data)

    @cached_property
    def _tied(self) -> float:
        """Seconds to sum the tied table's gradient over the first and the last stage, once a step."""
        job, links = self.job, self.links
        if job.pp == 1 or not job.shape.tied:
            return 0.0
        size = job.shape.vocab * job.shape.hidden / job.tp * self.stack.gradient_bytes
        return links.reduce(size, links.fan(2, job.stride("pp") * (job.pp - 1)))
