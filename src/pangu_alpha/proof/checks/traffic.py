"""Formulas for what every stage of a plan must send in an optimizer step, to be compared with its graph.

They know the network, the plan and how MindSpore 2.9 places its collectives, not the graph. Sizes are
payloads of one call: the input of an AllReduce or ReduceScatter, the output of an AllGather. Letters: B rows
of a micro-batch on a rank, S sequence, T = B * S, H hidden, V vocabulary rows of a rank's slice, M
micro-batches, L layers of the stage.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.network.parameters import ParameterSpec, parameter_table
from pangu_alpha.parallel.axes import single
from pangu_alpha.parallel.layout import Layout, layouts
from pangu_alpha.parallel.mesh import AXES, STAGE_AXES, Mesh

_SIZES = {"float32": 4, "int32": 4, "float16": 2, "bfloat16": 2}
ACTIVATION, TABLE = "stage to stage: activations", "tied table: first and last stage"
_SUMS = "layers: sums over heads and feed-forward"
BY_TABLE = "layers: as the found table splits them"
INPUTS = "inputs: rows of all ranks"
GATHERED = "weights: gathered for use"
SCATTERED = "gradients: summed and scattered"
SUMMED = "gradients: sums over replicas"
WORLD = "update: tokens and norm"
OVERFLOW = "update: overflow"
_LAST_OF_LAYER = "feed_forward.down.bias"  # only the layer's result uses it, and that is not recomputed


class Call(NamedTuple):
    """A kind of collective call: operation, axis and payload.

    Args:
        phase: See mindir.Phase.
        operation: "AllReduce", ...
        axis: Axis of the grid, as named by Mesh.axis_of.
        bytes: Payload of one call.
    """

    phase: str
    operation: str
    axis: str
    dtype: str
    bytes: int


@dataclass(frozen=True)
class Demand:
    """Calls that a formula predicts.

    Args:
        what: Purpose of the calls.
        times: Number of calls in a step.
    """

    what: str
    call: Call
    times: int


class Formulas:
    """The demands of one stage.

    Args:
        plan: A plan that fits the model.
        batch_size: B.
        compute_dtype: Type of activations: "float16", ...
        stage: Number of the stage, from 0.
        saturates: Whether overflow is detected by the chip's float status, which all ranks must exchange.
    """

    def __init__(
        self,
        model: ModelConfig,
        plan: ParallelPlan,
        batch_size: int,
        compute_dtype: str,
        stage: int,
        saturates: bool = False,
    ) -> None:
        self.saturates = saturates
        self.model = model
        self.plan = plan
        self.batch = batch_size
        self.dtype = compute_dtype
        self.stage = stage
        self.mesh = Mesh.of(plan)
        self.rows = batch_size * model.seq_length
        self.first, self.last = stage == 0, stage == plan.pp - 1

    @cached_property
    def placed(self) -> dict[str, Layout]:
        """Layout of every parameter."""
        return layouts(self.model, self.plan)

    @cached_property
    def table(self) -> Mapping[str, ParameterSpec]:
        """The row of every parameter in the parameter table."""
        return parameter_table(self.model)

    def demands(self) -> list[Demand]:
        """All demands."""
        return [*self.passes(), *self.updates()]

    def passes(self) -> list[Demand]:
        """Demands of the micro-batches' passes through the stage."""
        layers = self._layers() if self.plan.table is None else []
        parts = (layers, self._embedding(), self._loss(), self._inputs(), self._stages())
        return list(chain.from_iterable(parts))

    def updates(self) -> list[Demand]:
        """Demands of weights, gradients and the update."""
        parts = (self._table(), self._parameters(), self._world())
        return list(chain.from_iterable(parts))

    def _ask(
        self,
        what: str,
        phase: str,
        operation: str,
        axes: Sequence[str],
        elements: int,
        dtype: str,
        times: int,
    ) -> Iterator[Demand]:
        """Yields a demand, unless the axes have only one device or `times` is 0."""
        yield from self._ask_on(what, phase, operation, axis_name(self.mesh, axes), elements, dtype, times)

    def _ask_on(
        self, what: str, phase: str, operation: str, axis: str, elements: int, dtype: str, times: int
    ) -> Iterator[Demand]:
        """Like `_ask`, with the name of the axes; "" means one device."""
        if axis and times:
            yield Demand(what, Call(phase, operation, axis, dtype, elements * _SIZES[dtype]), times)

    def _layers(self) -> Iterator[Demand]:
        """Two sums of [T, H] per layer forward and, since the gradient of a sum is a sum, two backward.

        Under sequence parallelism each sum is a ReduceScatter, and an AllGather of [T, H] precedes the
        products that need all rows. Full recomputation repeats the first sum; no derivative needs the second.
        """
        plan, size = self.plan, self.rows * self.model.hidden_size
        first = sum(plan.stage_layers(self.model.num_layers)[: self.stage])
        layers = range(first, first + plan.stage_layers(self.model.num_layers)[self.stage])
        again = sum(plan.recompute_of_layer(layer) == "full" for layer in layers)
        calls = plan.micro_batches
        for phase, sums, gathers in (
            ("forward", 2 * len(layers), 2 * len(layers)),
            ("recompute", again, 2 * again),
            ("backward", 2 * len(layers), 2 * len(layers)),
        ):
            if not plan.sequence_parallel:
                yield from self._ask(_SUMS, phase, "AllReduce", ["tp"], size, self.dtype, sums * calls)
                continue
            summed, gathered = ("ReduceScatter", "AllGather")[:: -1 if phase == "backward" else 1]
            yield from self._ask(_SUMS, phase, summed, ["tp"], size, self.dtype, sums * calls)
            what = "layers: rows of the residual stream"
            yield from self._ask(what, phase, gathered, ["tp"], size, self.dtype, gathers * calls)

    def _embedding(self) -> Iterator[Demand]:
        """The sum of the ranks' lookups [B, S, H], in float32; each rank looks up its part of the vocabulary.

        With dp = 1, MindSpore scatters the sum by sequences if tp divides B and, without sequence
        parallelism, gathers it again.
        """
        if not (self.first and self.plan.vocab_parallel):
            return
        size, calls = self.rows * self.model.hidden_size, self.plan.micro_batches
        forward, backward = ["AllReduce"], ["AllReduce"]
        if self.plan.dp == 1 and self.batch % self.plan.tp == 0:
            forward, backward = ["ReduceScatter", "AllGather"], ["AllGather", "ReduceScatter"]
            if self.plan.sequence_parallel:
                forward, backward = forward[:1], backward[:1]
        for phase, operations in (("forward", forward), ("backward", backward)):
            for operation in operations:
                yield from self._ask(
                    "embedding: sum over the vocabulary", phase, operation, ["tp"], size, "float32", calls
                )

    def _loss(self) -> Iterator[Demand]:
        """Sums over the vocabulary for each row, and the sum over rows.

        Summed for each row are the largest logit, the exponentials and the label's logit. Without
        vocab_parallel, the rows of all tensor-parallel ranks are gathered instead.
        """
        if not self.last:
            return
        calls, tp = self.plan.micro_batches, ["tp"]
        what = "loss: sums over the vocabulary"
        if self.plan.vocab_parallel:
            yield from self._ask(what, "forward", "AllReduce", tp, self.rows, "float32", 3 * calls)
            yield from self._ask(what, "backward", "AllReduce", tp, self.rows, "float32", 2 * calls)
        else:
            what = "loss: rows of all tensor-parallel ranks"
            yield from self._ask(what, "forward", "AllGather", tp, self.rows, "float32", calls)
            yield from self._ask(what, "backward", "ReduceScatter", tp, self.rows, "float32", calls)
        if self.plan.vocab_parallel and self.plan.sequence_parallel:
            what, size = "loss: rows of the residual stream", self.rows * self.model.hidden_size
            yield from self._ask(what, "forward", "AllGather", tp, size, self.dtype, calls)
            yield from self._ask(what, "backward", "ReduceScatter", tp, size, self.dtype, calls)
        for phase in ("forward", "backward"):
            yield from self._ask("loss: sum over rows", phase, "AllReduce", ["dp"], 1, "float32", calls)

    def _inputs(self) -> Iterator[Demand]:
        """MindSpore gathers the micro-batches of all data-parallel ranks before it cuts them out.

        The first stage needs ids, positions and documents; the last one labels, loss mask, positions (of the
        query) and documents; the others documents; all need dropout's keys.
        """
        plan = self.plan
        if plan.micro_batches == 1:
            return
        integers = 4 if plan.pp == 1 else 3 if self.first or self.last else 1
        integers += bool(self.model.dropout)
        size = plan.micro_batches * plan.dp * self.rows
        for dtype, number in (("int32", integers), ("float32", int(self.last))):
            yield from self._ask(INPUTS, "forward", "AllGather", ["dp"], size, dtype, number)

    def _stages(self) -> Iterator[Demand]:
        """Activations [T, H] to the next stage and gradients back; slices under sequence parallelism."""
        plan, size = self.plan, self.rows * self.model.hidden_size
        if plan.pp == 1:
            return
        size //= plan.tp if plan.sequence_parallel else 1
        for does, forward, backward in (
            (not self.last, "Send", "Receive"),
            (not self.first, "Receive", "Send"),
        ):
            for phase, operation in (("forward", forward), ("backward", backward)):
                call = Call(phase, operation, self._hop("pp hop"), self.dtype, size * _SIZES[self.dtype])
                if does:
                    yield Demand(ACTIVATION, call, plan.micro_batches)

    def _table(self) -> Iterator[Demand]:
        """The tied table from the first to the last stage, and its gradient back."""
        if self.plan.pp > 1 and (self.first or self.last):
            operations = ("Send", "Receive") if self.first else ("Receive", "Send")
            for size in (_slice(self.placed[name]) * 4 for name, spec in self.table.items() if spec.tied):
                for phase, operation in zip(("parameter", "gradient"), operations, strict=True):
                    yield Demand(TABLE, Call(phase, operation, self._hop("pp pair"), "float32", size), 1)

    def _hop(self, name: str) -> str:
        """Name of the axis of two neighbouring stages; with only two stages, that of the whole pipeline."""
        return name if self.plan.pp > 2 else axis_name(self.mesh, ["pp"])

    def _parameters(self) -> Iterator[Demand]:
        """Gradients and weights of the stage's own parameters and of the last stage's copy of the tied table.

        The last stage sums its part of the tied table's gradient only under level1, and the first stage sums
        all of it once more. At the other levels the last stage sends the part of its own replica.
        """
        for name, layout in self.placed.items():
            sent = self.table[name].tied and self.last and self.plan.optimizer_parallel == "level1"
            if self.stage == layout.stage or sent:
                asks = self._gathered if layout.optimizer_parts > 1 else self._summed
                yield from asks(name, layout)

    def _summed(self, name: str, layout: Layout) -> Iterator[Demand]:
        """A gradient is summed over the devices that hold the same slice.

        Without micro-batches MindSpore sums once for each use of a parameter; the tied table has two uses.
        """
        times = 2 if self.table[name].tied and self.plan.micro_batches == 1 else 1
        axis, size = holders(layout, self.plan), _slice(layout)
        yield from self._ask_on(SUMMED, "gradient", "AllReduce", axis, size, "float32", times)

    def _gathered(self, name: str, layout: Layout) -> Iterator[Demand]:
        """Optimizer parallel: a slice is gathered before use, and its gradient is summed and scattered.

        Linear weights are gathered in the compute type with micro-batches or under level3 (MindSpore moves
        the AllGather behind the cast), otherwise in float32. Above level1, gradients are scattered for every
        micro-batch, and those of the tied table for each of its two uses.
        """
        plan, axis, size = self.plan, holders(layout, self.plan), _slice(layout)
        row = self.table[name].row
        cast = plan.micro_batches > 1 or plan.optimizer_parallel == "level3"
        dtype = self.dtype if cast and row.cast else "float32"
        yield from self._ask_on(GATHERED, "parameter", "AllGather", axis, size, dtype, self._gathers(name))
        phase, times = "gradient", 1
        if plan.optimizer_parallel != "level1" and plan.micro_batches > 1:
            phase = "backward" if plan.optimizer_parallel == "level2" else "gradient"
            times = plan.micro_batches * (2 if row.tied else 1)
        yield from self._ask_on(SCATTERED, phase, "ReduceScatter", axis, size, "float32", times)

    def _gathers(self, name: str) -> int:
        """How often a weight is gathered in a step.

        Once, except under level3. There it is gathered for every micro-batch, and again in the backward pass
        if a derivative needs it or, without micro-batches, if its layer is recomputed.
        """
        plan, spec = self.plan, self.table[name]
        if plan.optimizer_parallel != "level3":
            return 1
        if plan.micro_batches > 1:
            return plan.micro_batches * (1 + spec.row.in_backward)
        if spec.layer is None or spec.row.part == _LAST_OF_LAYER:
            return 1
        return 1 + (plan.recompute_of_layer(spec.layer) == "full")

    def _world(self) -> Iterator[Demand]:
        """Sums over all ranks: tokens, squared norm of gradients, and overflow if the chip saturates."""
        yield from self._ask(WORLD, "update", "AllReduce", AXES, 1, "float32", 2)
        if self.saturates:
            yield from self._ask(OVERFLOW, "update", "AllReduce", AXES, 1, "float32", 1)


def axis_name(mesh: Mesh, axes: Iterable[str]) -> str:
    """The name that Mesh.axis_of gives to whole axes together; "" for one device."""
    wide = [axis for axis in AXES if axis in axes and mesh.degree(axis) > 1]
    whole = math.prod(mesh.degree(axis) for axis in wide) == mesh.size
    return "world" if whole and len(wide) > 1 else "+".join(wide)


def holders(layout: Layout, plan: ParallelPlan) -> str:
    """The name that Mesh.axis_of gives to the devices of a stage with the same slice; "" for one device."""
    cutting = itertools.chain.from_iterable(single(axis, plan) for axis in layout.axes)
    return _holders(frozenset(cutting), Mesh.of(plan))


@functools.lru_cache(1 << 10)  # with a found table it walks through a stage's ranks, which may be thousands
def _holders(cutting: frozenset[str], mesh: Mesh) -> str:
    """See `holders`; `cutting` are the axes of the grid over which the parameter is cut."""
    if not mesh.tensor:
        return axis_name(mesh, set(STAGE_AXES) - cutting)
    group = [rank for rank in mesh.stage_ranks(0) if not any(mesh.digits(rank)[axis] for axis in cutting)]
    return mesh.axis_of(group) if len(group) > 1 else ""


def _slice(layout: Layout) -> int:
    """Number of elements of a slice, before the optimizer's sharding."""
    return math.prod(layout.shape) // math.prod(layout.parts)
