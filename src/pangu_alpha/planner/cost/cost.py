"""Seconds of an optimizer step: operators, collectives on the links they cross, the pipeline, the optimizer.

What an operator takes is in planner.cost.layer. Where the host starts operators one by one (PyTorch on NVIDIA
devices), a pass takes at least the host's time. Letters as in planner.cost.shapes.
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
from pangu_alpha.planner.cost.layer import ADAM_BYTES, Layer, Pass, Rates
from pangu_alpha.planner.cost.schedule import duration


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
        self.cluster, self.stack = cluster, stack
        self.rates = Rates(cluster.device, stack)
        self.overlap = cluster.device.constants.overlap if stack.overlap else 0.0
        family = FAMILIES.get(cluster.device.family)
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


class Step:
    """The time of one job's step, part by part. Unit of all times: seconds."""

    def __init__(self, model: CostModel, job: Job) -> None:
        self.model, self.job = model, job
        self.exchange = exchange_of(model.links, model.stack, model.overlap, job, model.saturates)
        self.layer = Layer(model.rates, job)
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
            forward, backward = forward + self.layer.logits[0], backward + self.layer.logits[1]
        if first:
            forward, backward = forward + self.layer.words, backward + self.layer.words
        if self.job.micro_batches > 1:
            backward += self.layer.accumulated(parameters)
        return forward, backward

    @cached_property
    def forward_layer(self) -> Pass:
        """Time of a layer's forward pass."""
        return self.layer.forward + Pass(traffic=self.exchange.forward_layer)

    def backward_layer(self, mode: str) -> Pass:
        """Time of a layer's backward pass: every product twice, plus what `mode` recomputes."""
        if mode not in self._backward:
            self._backward[mode] = self._backward_layer(mode)
        return self._backward[mode]

    def _backward_layer(self, mode: str) -> Pass:
        return self.layer.backward(mode) + Pass(traffic=self._backward_traffic(mode))

    def _backward_traffic(self, mode: str) -> float:
        """Time of the sums of a layer's backward pass that products of weight gradients do not hide."""
        traffic = self.exchange.backward_layer(mode)
        if not self.model.stack.hides_sums:
            return traffic
        return traffic - min(self.exchange.backward_layer("none"), self.layer.behind)

    def optimizer(self, parameters: int) -> float:
        """Seconds to update a rank's share of a stage's parameters."""
        share = parameters if self.job.sharding == "none" else parameters / self.job.dp
        return self.model.rates.moved(ADAM_BYTES * share)
