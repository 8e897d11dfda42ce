"""The engine for a plan whose graph MindSpore splits over Ascend devices; it is used like engine.Engine.

Knows this rank's slices and rows; training.partitioned.step defines what the graph computes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from mindspore import Tensor

from pangu_alpha.checkpoint.naming import parameter_of
from pangu_alpha.checkpoint.native.distributed import COPIES
from pangu_alpha.checkpoint.tensors import Box
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.data.batches import Batch
from pangu_alpha.model.operators import operators_for
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.parallel.context import partition
from pangu_alpha.parallel.layout import layouts, written_slices
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.world import World
from pangu_alpha.processes.host_memory import give_back, keep_arrays_apart
from pangu_alpha.training.checkpoints import boxes_of_rank
from pangu_alpha.training.engine import Engine, dropout_stream, graph_inputs, reported_norm
from pangu_alpha.training.guard import Guard
from pangu_alpha.training.hooks.hook import StepResult
from pangu_alpha.training.objectives import objective_of
from pangu_alpha.training.partitioned.step import PartitionedStep, partitioned_step
from pangu_alpha.training.schedule import row_numbers, step_controls

logger = logging.getLogger(__name__)


class PartitionedEngine(Engine):
    """One rank's share of the training state.

    It is built without values, so that the host never holds more than this rank's slices.

    Args:
        world: All ranks of the plan.
    """

    device: str | None = None  # device whose operators the step uses; None is the device in use

    def __init__(self, config: TrainConfig, world: World) -> None:
        self.config = config
        self.world = world
        self.objective = objective_of(config)
        plan = config.parallel
        self._operators = operators_for(
            config.model,
            self.device,
            chip=config.run.chip,
            device_dropout=dropout_stream(config, world.rank),
            precision=config.run.float32_matmul_precision,  # refuses all but the default
        )
        self._step = self._make_step()
        self._step.set_train()
        self.compute_dtype = self._operators.compute_dtype
        self.optimizer = self._step.update.optimizer
        self._parameters = self.optimizer.parameters
        self._nominal_weight = config.samples_per_step * self.objective.nominal_weight
        self._shapes = parameter_shapes(config.model)
        self._boxes = boxes_of_rank(config.model, plan, world.rank)
        self._written = written_slices(layouts(config.model, plan), plan, world.rank)

    def _make_step(self) -> PartitionedStep:
        """Makes the step, not yet compiled, after setting this process to split its graphs by the plan."""
        config, rank = self.config, self.world.rank
        partition(config.parallel, rank, inputs=self._cuts())
        return partitioned_step(self.objective, config.optim, config.parallel, rank, self._operators)

    def _cuts(self) -> list[tuple[int, ...]]:
        """Number of parts into which each dimension of each of the step's inputs is cut."""
        return [field.cuts(self.config.parallel) for field in self.objective.fields]

    @property
    def graph(self) -> PartitionedStep:
        """The step's cell, for callers that read the graph that `compile` made of it."""
        return self._step

    def compile(self) -> None:
        """Compiles the step, which cuts parameters into this rank's slices; values must be set afterwards.

        The last stage's copy of the first stage's embedding table needs no values: each step receives it
        anew.
        """
        if self.world.rank == 0:
            logger.info(
                "compiling the training graph of %s parameters", f"{self.config.model.parameter_count:,}"
            )
        rows = self.config.run.batch_size * self.config.parallel.micro_batches
        keep_arrays_apart()  # for the slices of zeros, most of which are overwritten before they are read
        kinds = [((rows, *field.shape), field.dtype) for field in self.objective.fields]
        zeros = {kind: Tensor(np.zeros(*kind)) for kind in kinds}
        self._step.compile(*(zeros[kind] for kind in kinds))
        give_back()  # the compiler has freed hundreds of megabytes, which the initial values need

    def step(
        self,
        step: int,
        micro_batches: Sequence[Batch],
        guard: Guard,
        before_update: Callable[[], None] = lambda: None,
    ) -> StepResult:
        """Takes an optimizer step; see Engine.step. Row losses are empty, as they stay on the devices."""
        own = sum(batch.weights.sum(dtype=np.float64) for batch in micro_batches)
        controls = step_controls(step, self.config.optim, guard, own, self._nominal_weight)
        self._step.controls.set_data(Tensor(controls))
        before_update()
        if self._operators.float_status is not None:
            self._operators.float_status.clear()
        inputs = self._whole_inputs(step, micro_batches)
        total, norm, applied = self._step(*inputs)
        weights, total = self.world.gather(np.array([own, float(total.asnumpy())])).T
        row_holders = Mesh.of(self.config.parallel).row_holders
        loss = float(total[-1] / (weights.sum() / row_holders + 1e-5))  # the last rank is of the last stage
        none = np.zeros(0)
        return StepResult(loss, reported_norm(norm), bool(applied.asnumpy()), none, none, none)

    def _whole_inputs(self, step: int, micro_batches: Sequence[Batch]) -> tuple[Tensor, ...]:
        """The objective's fields of all micro-batches together, [M * B, ...] each."""
        plan, run = self.config.parallel, self.config.run
        data = Mesh.of(plan).coordinates(self.world.rank).data
        rows = row_numbers(len(micro_batches), data, plan.dp, run.batch_size)
        drawn = self.objective.draw(step, rows.ravel())
        return graph_inputs(self.objective.fields, Batch.joined(micro_batches), drawn)

    def slices(self) -> dict[str, dict[str, Any]]:
        """Where this rank's tensors lie in the whole ones, as Manifest.slices."""
        places: dict[str, dict[str, Any]] = {}
        for group, parameters in self._groups().items():
            for name in parameters:
                if (stem := self._stem(group, name)) is not None:
                    start, shape = self._box(name).start, self._shapes[parameter_of(name)]
                    places.setdefault(stem, {})[name] = {"start": list(start), "shape": list(shape)}
        return places

    def _stem(self, stem: str, name: str) -> str | None:
        """One of the ranks that hold a slice saves it; on node-local storage the others save copies."""
        if parameter_of(name) in self._written:
            return stem
        return stem + COPIES if self.config.run.checkpoint.storage == "local" else None

    def _box(self, name: str) -> Box:
        return self._boxes[parameter_of(name)]

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float | int]:
        """Not possible under a plan, because only the step's graph is compiled; see config.run.unrunnable."""
        raise NotImplementedError
