"""Seconds of an optimizer step: operators, collectives on the links they cross, the pipeline, the optimizer.

A matrix product takes the longer of two times, plus the constant `kernel` (launch, ramp, partly filled last
wave): its FLOPs at the share `matmul` of the peak, or its bytes at the share `memory` of the bandwidth. The
efficiency therefore rises with the size and with the smallest dimension. Operators without reuse take the
time of their bytes. Where the host starts operators one by one (PyTorch on NVIDIA devices), a pass takes at
least the host's time, and the kernels of Megatron-LM and cuBLAS run at full speed for some sizes only.
Letters as in planner.cost.shapes; t is the tensor parallel degree, b the sequences of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from pangu_alpha.config.families import FAMILIES
from pangu_alpha.planner.cost.collectives import Links
from pangu_alpha.planner.cost.exchange import Stage, exchange_of
from pangu_alpha.planner.cost.hardware import Cluster, Stack
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.cost.schedule import duration

WORD = 2  # bytes of an activation or a weight in 16 bits
# Bytes that memory-bound operators move; per element of a token's row unless the comment names another unit.
_NORM_BYTES = 4 * 2  # the two norms of a layer: a read and a write each
_RESIDUAL_BYTES = 7 * 2  # dropout and residual sum, twice: two reads, a write, the mask
_ACTIVATION_BYTES = 4  # the feed-forward's activation: a read and a write
_SCORE_BYTES = 9  # per score of unfused attention: softmax and dropout read and write it; dropout's mask
_FLOAT_BYTES = 30  # per score, in addition, where scale, mask and softmax are separate kernels in float32
_FLOAT_OPERATORS = 12  # operators that the host then starts in addition to those of the one kernel
_SOFTMAX_ROWS = 4  # the one kernel needs a multiple of so many heads x sequences
_MASK_BYTES = (
    13,
    4,
)  # per element of a dropout mask by position, in addition: forward, backward
_LOSS_BYTES = 14  # per logit: cast to float32, the maximum, the sum of exponentials, the difference
_ADAM_BYTES = 28  # per parameter: gradient, moments and master weight read and written, the 16-bit copy
_ACCUMULATE_BYTES = {2: 6, 4: 20}  # per gradient added to its sum: in 16 bits in place, in float32 by a cast
_OPERATORS = 30  # operators that the host starts in a layer's forward pass
_LOSS_OPERATORS = 30  # the same for logits and loss
_WORD_OPERATORS = 10  # the same for the embedding
_FUSED_BACKWARD = 2.5  # fused attention's backward pass, in forward passes: it computes the scores again
_CAUSAL = 0.5  # share of the scores that fused causal attention computes
_ODD = 0.32  # share of the rate where rows have an odd length: 2-byte loads (logits of 50257 words, A100)
# Exponents p of (device^p + host^p)^(1/p), the time of a pass; the larger, the closer to the maximum of both.
_ALONE = 4.0  # without collectives the host runs ahead of the device
_TOGETHER = 1.75  # with them each sum waits for the slowest host (fitted on one half of the single_node runs)


@dataclass(frozen=True)
class Pass:
    """Time of the work of a layer, a table or a stage on one micro-batch. Unit: seconds.

    Args:
        compute: Matrix products.
        memory: Operators without reuse, which are bound by memory bandwidth.
        traffic: Tensor parallel collectives.
        host: Time that the host needs to start all operators.
    """

    compute: float = 0.0
    memory: float = 0.0
    traffic: float = 0.0
    host: float = 0.0

    def __add__(self, other: Pass) -> Pass:
        return Pass(
            self.compute + other.compute,
            self.memory + other.memory,
            self.traffic + other.traffic,
            self.host + other.host,
        )

    def __mul__(self, times: float) -> Pass:
        return Pass(self.compute * times, self.memory * times, self.traffic * times, self.host * times)

    @property
    def seconds(self) -> float:
        """Time of the pass: the longer of the device's and the host's time; more if both are similar.

        When both are similar, sometimes the device waits for the host and sometimes the host for the device;
        this costs more if ranks also exchange data on the way.
        """
        device = self.compute + self.memory + self.traffic
        if not self.host:
            return device
        norm = _TOGETHER if self.traffic else _ALONE
        return (device**norm + self.host**norm) ** (1 / norm)


class StageCost(NamedTuple):
    """Time of one stage. Unit: seconds.

    Args:
        forward: Forward pass of a micro-batch, with its transfer and with the part of the weight gathers that
            the computation does not hide.
        backward: The same of the backward pass, including recomputation.
        traffic: Traffic that happens once a step: gradients, weights and the tied table.
        optimizer: The update of the parameters, once a step.
        work: Both passes without transfers and gathers.
        gathers: The part of the gathers of both passes that the computation does not hide.
    """

    forward: float
    backward: float
    traffic: float
    optimizer: float
    work: Pass
    gathers: float

    @property
    def busy(self) -> float:
        """Time of both passes."""
        return self.forward + self.backward


@dataclass(frozen=True)
class Estimate:
    """Time of an optimizer step and its parts. Unit: seconds.

    Args:
        pipeline: From the first forward pass to the last backward pass.
        bubble: The part of `pipeline` in which the slowest stage waits.
        data_parallel: Gradient and weight traffic that the computation does not hide.
        optimizer: The update of the parameters.
        forward: Forward pass of a micro-batch for each stage, transfers included.
        backward: The same of the backward pass, recomputation included.
        parts: Busy time of the slowest stage in a step, by name of the part.
    """

    step: float
    pipeline: float
    bubble: float
    data_parallel: float
    optimizer: float
    forward: tuple[float, ...]
    backward: tuple[float, ...]
    parts: dict[str, float]


class CostModel:
    """Estimates the steps of jobs on one cluster with one software stack.

    Args:
        stack: The software; its `fused_attention` must be decided (see planner.cost.software).
    """

    def __init__(self, cluster: Cluster, stack: Stack) -> None:
        assert stack.fused_attention is not None, f"{stack.name}: see planner.cost.software"
        self.cluster, self.stack = cluster, stack
        device, fitted = cluster.device, cluster.device.constants
        self.rate = device.peak * fitted.matmul
        self.bandwidth = device.bandwidth * fitted.memory
        self.attention = fitted.attention
        self.kernel = fitted.kernel
        self.host = fitted.host if stack.eager else 0.0
        self.overlap = fitted.overlap if stack.overlap else 0.0
        family = FAMILIES.get(device.family)
        self.saturates = family is not None and family.saturates
        self.links = Links(cluster, stack.rings)

    def estimate(self, job: Job) -> Estimate:
        """Estimates the time of a job's optimizer step.

        Raises:
            ValueError: If the job needs more devices than the cluster has.
        """
        if job.devices > self.cluster.count:
            raise ValueError(
                f"{job.devices} devices (dp {job.dp} x tp {job.tp} x pp {job.pp}) are more than the "
                f"{self.cluster.count} of {self.cluster.name}"
            )
        return Step(self, job).estimate()

    def product(self, flops: float, size: float) -> float:
        """Seconds of a matrix product of `flops` operations that moves `size` bytes."""
        return max(flops / self.rate, size / self.bandwidth) + self.kernel

    def moved(self, size: float) -> float:
        """Seconds to move `size` bytes from or to the device's memory."""
        return size / self.bandwidth


class Step:
    """The time of one job's step, part by part. Unit of all times: seconds."""

    def __init__(self, model: CostModel, job: Job) -> None:
        self.model, self.job, self.shape = model, job, job.shape
        self.exchange = exchange_of(model.links, model.stack, model.overlap, job, model.saturates)
        self._known: dict[tuple, StageCost] = {}
        self._backward: dict[str, Pass] = {}

    def estimate(self) -> Estimate:
        """Estimates the step: the pipeline's schedule, then the largest traffic and update of a stage."""
        job = self.job
        ends = [(stage == 0, stage == job.pp - 1) for stage in range(job.pp)]
        stages = [self.stage(*end, counts) for end, counts in zip(ends, job.recomputed(), strict=True)]
        forward = tuple(stage.forward for stage in stages)
        backward = tuple(stage.backward for stage in stages)
        pipeline = duration(forward, backward, job.micro_batches, job.schedule, job.chunks)
        slowest = max(stages, key=lambda stage: stage.busy)
        traffic = max(stage.traffic for stage in stages)
        optimizer = max(stage.optimizer for stage in stages)
        return Estimate(
            step=pipeline + traffic + optimizer,
            pipeline=pipeline,
            bubble=pipeline - job.micro_batches * slowest.busy,
            data_parallel=traffic,
            optimizer=optimizer,
            forward=forward,
            backward=backward,
            parts=self._parts(slowest),
        )

    def stage(self, first: bool, last: bool, counts: Mapping[str, int], once: bool = True) -> StageCost:
        """Returns the cost of a stage; equal stages are computed only once.

        Args:
            first: Whether the stage embeds the tokens.
            last: Whether the stage computes logits and loss.
            counts: Number of the stage's layers by recompute mode.
            once: False leaves out the traffic that happens once a step.
        """
        key = (first, last, once, *sorted(counts.items()))
        if key not in self._known:
            self._known[key] = self._stage(first, last, counts, once)
        return self._known[key]

    def _stage(self, first: bool, last: bool, counts: Mapping[str, int], once: bool) -> StageCost:
        parameters = self.job.parameters_of(sum(counts.values()), first, last)
        ahead, back = self._passes(first, last, counts, parameters)
        stage = Stage(first, last, counts, parameters)
        shown = self.exchange.gathers(stage, ahead.seconds, back.seconds)
        sent = self.exchange.transfers(first, last)
        forward, backward = ahead.seconds + sent[0] + shown[0], back.seconds + sent[1] + shown[1]
        traffic = self.exchange.once(stage, ahead.seconds, backward) if once else 0.0
        return StageCost(forward, backward, traffic, self.optimizer(parameters), ahead + back, sum(shown))

    def _parts(self, stage: StageCost) -> dict[str, float]:
        work = stage.work
        device = work.compute + work.memory + work.traffic
        parts = {
            "matrix products": work.compute,
            "memory-bound": work.memory,
            "tensor parallel": work.traffic,
            "host": work.seconds - device,
            "stage to stage": stage.busy - work.seconds - stage.gathers,
            "weight gathers": stage.gathers,
        }
        return {name: seconds * self.job.micro_batches for name, seconds in parts.items()}

    def _passes(
        self, first: bool, last: bool, counts: Mapping[str, int], parameters: int
    ) -> tuple[Pass, Pass]:
        """Times of a micro-batch's two passes through a stage, without transfers and gathers."""
        forward, backward = (Pass(traffic=each) for each in self.exchange.ends(first, last))
        for mode, layers in counts.items():
            forward += self.forward_layer * layers
            backward += self.backward_layer(mode) * layers
        if last:
            forward += self.logits
            backward += self.logits * 2
        if first:
            moved = self.model.moved(6 * self.job.tokens * self.shape.hidden)
            words = Pass(memory=moved, host=self.model.host * _WORD_OPERATORS)
            forward, backward = forward + words, backward + words
        if self.job.micro_batches > 1:
            size = _ACCUMULATE_BYTES[self.model.stack.gradient_bytes] * parameters
            backward += Pass(memory=self.model.moved(size))
        return forward, backward

    @cached_property
    def forward_layer(self) -> Pass:
        """Time of a layer's forward pass."""
        return self._compute + Pass(traffic=self.exchange.forward_layer)

    def backward_layer(self, mode: str) -> Pass:
        """Time of a layer's backward pass: every product twice, plus what `mode` recomputes."""
        if mode not in self._backward:
            self._backward[mode] = self._backward_layer(mode)
        return self._backward[mode]

    def _backward_layer(self, mode: str) -> Pass:
        again = _FUSED_BACKWARD if self.model.stack.fused_attention else 2
        backward = self._weights * 2 + self._attention * again + self._elementwise * 2
        backward += self._masks(1) + Pass(traffic=self.exchange.backward_layer(mode))
        if mode == "selective":
            return backward + self._attention + self._masks(0, residual=False)
        return backward + self._compute if mode == "full" else backward

    @cached_property
    def _compute(self) -> Pass:
        """Time of a layer's operators in the forward pass."""
        return self._weights + self._attention + self._elementwise + self._masks(0)

    def _masks(self, backward: int, residual: bool = True) -> Pass:
        """Time to make dropout's masks by position: of the scores, and twice of the residual stream."""
        job, shape, stack = self.job, self.shape, self.model.stack
        if not (stack.partitioned and shape.dropout):
            return Pass()
        elements = job.tokens * shape.seq * shape.heads / job.tp
        if residual:
            elements += 2 * job.tokens * shape.hidden / (job.tp if job.sequence_parallel else 1)
        return Pass(memory=self.model.moved(_MASK_BYTES[backward] * elements))

    @cached_property
    def _weights(self) -> Pass:
        """Time of the products with weights, each split over tp by columns or rows; host time included."""
        tokens, tp = self.job.tokens, self.job.tp
        seconds = 0.0
        for item in self.shape.products():
            if not item.heads:
                wide = max(item.inner, item.outer) / tp  # the split side
                narrow = min(item.inner, item.outer)
                size = WORD * (tokens * (wide + narrow) + wide * narrow)
                seconds += self.model.product(2 * tokens * wide * narrow, size)
        return Pass(compute=seconds, host=self.model.host * _OPERATORS)

    @cached_property
    def _attention(self) -> Pass:
        """Time of scores, softmax and weighted values of a rank's heads."""
        job, shape, model = self.job, self.shape, self.model
        heads = shape.heads / job.tp
        scores = job.tokens * shape.seq * heads
        columns = 4 * job.tokens * heads * shape.head_size * WORD
        flops = 4 * scores * shape.head_size
        if model.stack.fused_attention:
            return Pass(compute=model.product(flops * _CAUSAL / model.attention, columns))
        products = model.product(flops, columns + 2 * scores * WORD) + model.kernel
        if model.stack.eager and job.micro_batch * heads % _SOFTMAX_ROWS:
            moved = model.moved((_SCORE_BYTES + _FLOAT_BYTES) * scores)
            return Pass(products, moved, host=model.host * _FLOAT_OPERATORS)
        return Pass(products, model.moved(_SCORE_BYTES * scores))

    @cached_property
    def _elementwise(self) -> Pass:
        """Time of norms, residuals, dropout, activation and rotary positions."""
        job, shape = self.job, self.shape
        stream = (_NORM_BYTES + _RESIDUAL_BYTES) * shape.hidden / (job.tp if job.sequence_parallel else 1)
        inner = _ACTIVATION_BYTES * shape.ffn * (1.5 if shape.gated else 1.0)
        rotary = 0 if shape.positions else 4 * (shape.heads + shape.kv_heads) * shape.head_size
        size = job.tokens * (stream + (inner + rotary) / job.tp)
        return Pass(memory=self.model.moved(size))

    @cached_property
    def logits(self) -> Pass:
        """Time of logits and loss in the forward pass."""
        columns = self.shape.vocab / (self.job.tp if self.job.vocab_parallel else 1)
        tokens, hidden = self.job.tokens, self.shape.hidden
        size = WORD * (tokens * (hidden + columns) + hidden * columns)
        odd = _ODD if self.model.stack.eager and columns % 2 == 1 else 1.0
        product = self.model.product(2 * tokens * hidden * columns / odd, size)
        host = self.model.host * _LOSS_OPERATORS
        return Pass(product, self.model.moved(_LOSS_BYTES * tokens * columns), host=host)

    def optimizer(self, parameters: int) -> float:
        """Seconds to update a rank's share of a stage's parameters."""
        share = parameters if self.job.sharding == "none" else parameters / self.job.dp
        return self.model.moved(_ADAM_BYTES * share)
