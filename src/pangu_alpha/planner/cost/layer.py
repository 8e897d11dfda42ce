"""Seconds of the operators of one layer, and of logits and loss, for a micro-batch on one rank; no traffic.

A matrix product takes the longer of two times, plus the constant `kernel` (launch, ramp, partly filled last
wave): its FLOPs at the share `matmul` of the peak, or its bytes at the share `memory` of the bandwidth. The
efficiency therefore rises with the size and with the smallest dimension. Operators without reuse take the
time of their bytes. Letters as in planner.cost.shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from pangu_alpha.planner.cost.hardware import Device, Stack
from pangu_alpha.planner.cost.job import Job

WORD = 2  # bytes of an activation or a weight in 16 bits
# Bytes that memory-bound operators move; per element of a token's row unless the comment names another unit.
_NORM_BYTES = 4 * 2  # the two norms of a layer: a read and a write each
_RESIDUAL_BYTES = 7 * 2  # dropout and residual sum, twice: two reads, a write, the mask
_ACTIVATION_BYTES = 4  # the feed-forward's activation: a read and a write
# Per element of a gated feed-forward, and of queries and keys with rotary positions: where neighbouring
# operators are one kernel, and where each is its own (SiLU 4, product 6; casts to float32 and back 12, two
# products, a sum and the exchange of halves 36).
_GATE_BYTES = {True: 6, False: 10}
_ROTARY_BYTES = {True: 4, False: 48}
_SCORE_BYTES = 9  # per score of unfused attention: softmax and dropout read and write it; dropout's mask
_FLOAT_BYTES = 30  # per score, in addition, where scale, mask and softmax are separate kernels in float32
_FLOAT_OPERATORS = 12  # operators that the host then starts in addition to those of the one kernel
_MASK_BYTES = (13, 4)  # per element of a dropout mask by position, in addition: forward, backward
_LOSS_BYTES = 14  # per logit: cast to float32, the maximum, the sum of exponentials, the difference
ADAM_BYTES = 28  # per parameter: gradient, moments and master weight read and written, the 16-bit copy
_ACCUMULATE_BYTES = {2: 6, 4: 20}  # per gradient added to its sum: in 16 bits in place, in float32 by a cast
_OPERATORS = 30  # operators that the host starts in a layer's forward pass
_LOSS_OPERATORS = 30  # the same for logits and loss
_WORD_OPERATORS = 10  # the same for the embedding
_FUSED_BACKWARD = 2.5  # fused attention's backward pass, in forward passes: it computes the scores again
_COLUMN_PARALLEL = ("qkv", "up")  # products that tp splits by columns; it splits the others by rows
# Terms of a product's sums that take as long as filling and draining a tile's pipeline of loads; the best of
# 0, 100 and 200 when whole model sizes are left out of the fit (docs/results/cost_model_error.md).
_FILL = 200.0
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


class Rates:
    """How fast a device computes and moves bytes under a software stack.

    Args:
        stack: The software; its `fused_attention` must be decided (see planner.cost.software).
    """

    def __init__(self, device: Device, stack: Stack) -> None:
        assert stack.fused_attention is not None, f"{stack.name}: see planner.cost.software"
        fitted = device.constants
        self.stack = stack
        self.rate = device.peak * fitted.matmul
        self.bandwidth = device.bandwidth * fitted.memory
        self.attention = fitted.attention
        self.kernel = fitted.kernel
        self.host = fitted.host if stack.eager else 0.0

    def product(self, flops: float, size: float, inner: float) -> float:
        """Seconds of a matrix product of `flops` operations that moves `size` bytes; sums have `inner` terms.

        A tile fills and drains its pipeline of loads once, which takes as long as `_FILL` terms of its sums.
        """
        return max(flops * (1 + _FILL / inner) / self.rate, size / self.bandwidth) + self.kernel

    def moved(self, size: float) -> float:
        """Seconds to move `size` bytes from or to the device's memory."""
        return size / self.bandwidth


class Layer:
    """The times of a layer's operators and of the logits, of one job. Unit of all times: seconds."""

    def __init__(self, rates: Rates, job: Job) -> None:
        self.rates, self.job, self.shape = rates, job, job.shape

    @cached_property
    def forward(self) -> Pass:
        """Time of a layer's operators in the forward pass."""
        return self._weights + self._attention + self._elementwise() + self._masks(0)

    def backward(self, mode: str) -> Pass:
        """Time of the gradients of a layer's inputs and weights, and of what `mode` recomputes."""
        found = self._weights_backward + self._attention_backward + self._elementwise() * 2 + self._masks(1)
        if mode == "selective":
            return found + self._attention + self._masks(0, residual=False)
        return found + self._repeated if mode == "full" else found

    @property
    def behind(self) -> float:
        """Time of those products of weight gradients that a sum of the backward pass can run beside.

        These are the products whose input's gradient is summed over tensor parallel ranks.
        """
        return sum(self._products[name][2] for name in _COLUMN_PARALLEL)

    @property
    def _repeated(self) -> Pass:
        """Time of the operators that full recompute repeats."""
        if self.rates.stack.repeats_last:
            return self.forward
        spared = Pass(compute=-self._products["down"][0])
        return self._weights + spared + self._attention + self._elementwise(0.5) + self._masks(0)

    def _masks(self, backward: int, residual: bool = True) -> Pass:
        """Time to make dropout's masks by position: of the scores, and twice of the residual stream."""
        job, shape, stack = self.job, self.shape, self.rates.stack
        if not (stack.partitioned and shape.dropout):
            return Pass()
        elements = job.tokens * shape.seq * shape.heads / job.tp
        if residual:
            elements += 2 * job.tokens * shape.hidden / (job.tp if job.sequence_parallel else 1)
        return Pass(memory=self.rates.moved(_MASK_BYTES[backward] * elements))

    @cached_property
    def _products(self) -> dict[str, tuple[float, float, float]]:
        """`_passes_of` for each product with weights, which tp splits by columns or by rows."""
        tp, found = self.job.tp, {}
        for name, inner, outer, heads in self.shape.products():
            if not heads:
                sides = (inner, outer / tp) if name in _COLUMN_PARALLEL else (inner / tp, outer)
                found[name] = self._passes_of(*sides)
        return found

    def _passes_of(self, inner: float, outer: float) -> tuple[float, float, float]:
        """Seconds of [T, inner] x [inner, outer], of its input's gradient and of its weight's.

        All three compute and move the same, but sum over another dimension each.
        """
        tokens, product = self.job.tokens, self.rates.product
        flops, size = 2 * tokens * inner * outer, WORD * (tokens * (inner + outer) + inner * outer)
        return product(flops, size, inner), product(flops, size, outer), product(flops, size, tokens)

    @cached_property
    def _weights(self) -> Pass:
        """Time of the products with weights in the forward pass; host time of all a layer's operators."""
        return Pass(sum(each[0] for each in self._products.values()), host=self.rates.host * _OPERATORS)

    @cached_property
    def _weights_backward(self) -> Pass:
        """Time of the gradients of inputs and weights."""
        seconds = sum(each[1] + each[2] for each in self._products.values())
        return Pass(seconds, host=2 * self.rates.host * _OPERATORS)

    @cached_property
    def _attention(self) -> Pass:
        """Time of scores, softmax and weighted values of a rank's heads."""
        shape, rates = self.shape, self.rates
        if rates.stack.fused_attention:
            return Pass(self._fused(1.0))
        products = self._of_scores(shape.head_size) + self._of_scores(shape.seq)
        return Pass(products) + self._softmax

    @cached_property
    def _attention_backward(self) -> Pass:
        """Time of the backward pass of `_attention`: two products each for scores and weighted values."""
        if self.rates.stack.fused_attention:
            return Pass(self._fused(_FUSED_BACKWARD))
        products = self._of_scores(self.shape.head_size) + 3 * self._of_scores(self.shape.seq)
        return Pass(products) + self._softmax * 2

    @property
    def _scores(self) -> float:
        """Number of scores of a rank's heads."""
        return self.job.tokens * self.shape.seq * self.shape.heads / self.job.tp

    def _fused(self, times: float) -> float:
        """Seconds of `times` forward passes of fused attention."""
        size = 4 * self.job.tokens * self.shape.attention_size / self.job.tp * WORD
        flops = 4 * self._scores * self.shape.head_size * _CAUSAL / self.rates.attention
        return times * self.rates.product(flops, size, math.inf)

    def _of_scores(self, inner: int) -> float:
        """Seconds of one product that sums over a head's columns (scores) or over positions (values)."""
        columns = 2 * self.job.tokens * self.shape.attention_size / self.job.tp
        size = WORD * (columns + self._scores)
        return self.rates.product(2 * self._scores * self.shape.head_size, size, inner)

    @cached_property
    def _softmax(self) -> Pass:
        """Time of scale, mask, softmax and dropout of a rank's scores."""
        rates, rows = self.rates, self.job.micro_batch * self.shape.heads / self.job.tp
        if rows % rates.stack.softmax_rows:
            moved = rates.moved((_SCORE_BYTES + _FLOAT_BYTES) * self._scores)
            return Pass(memory=moved, host=rates.host * _FLOAT_OPERATORS)
        return Pass(memory=rates.moved(_SCORE_BYTES * self._scores))

    def _elementwise(self, residuals: float = 1.0) -> Pass:
        """Time of norms, residuals, dropout, activation and rotary positions.

        Args:
            residuals: Share of the two residual sums that are computed.
        """
        job, shape = self.job, self.shape
        stream = (_NORM_BYTES + _RESIDUAL_BYTES * residuals) * shape.hidden
        stream /= job.tp if job.sequence_parallel else 1
        fused = self.rates.stack.fused_pointwise
        inner = shape.ffn * (_GATE_BYTES[fused] if shape.gated else _ACTIVATION_BYTES)
        turned = 0 if shape.positions else (shape.heads + shape.kv_heads) * shape.head_size
        rotary = _ROTARY_BYTES[fused] * turned
        size = job.tokens * (stream + (inner + rotary) / job.tp)
        return Pass(memory=self.rates.moved(size))

    @cached_property
    def logits(self) -> tuple[Pass, Pass]:
        """Times of logits and loss in the forward and the backward pass."""
        columns = self.shape.vocab / (self.job.tp if self.job.vocab_parallel else 1)
        ahead, *back = self._passes_of(self.shape.hidden, columns)
        odd = _ODD if self.rates.stack.eager and columns % 2 == 1 else 1.0
        rest = Pass(
            memory=self.rates.moved(_LOSS_BYTES * self.job.tokens * columns),
            host=self.rates.host * _LOSS_OPERATORS,
        )
        return rest + Pass(ahead / odd), rest * 2 + Pass(sum(back) / odd)

    @cached_property
    def words(self) -> Pass:
        """Time of the embedding in either pass."""
        moved = self.rates.moved(6 * self.job.tokens * self.shape.hidden)
        return Pass(memory=moved, host=self.rates.host * _WORD_OPERATORS)

    def accumulated(self, parameters: int) -> Pass:
        """Time to add a micro-batch's gradients to their sums, where this is an operator of its own."""
        stack = self.rates.stack
        size = 0 if stack.fused_sums else _ACCUMULATE_BYTES[stack.gradient_bytes] * parameters
        return Pass(memory=self.rates.moved(size))
