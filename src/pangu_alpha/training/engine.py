"""The network, its optimizer and its graphs as one thing that steps, evaluates, saves and loads.

Knows arrays and scalars; knows nothing of files, data order or reports, nor of any one network.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn

from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.naming import MOMENTS, parameter_of
from pangu_alpha.checkpoint.native.background import Entry, Spec
from pangu_alpha.checkpoint.native.format import compare_tensors
from pangu_alpha.checkpoint.tensors import Box, Source, whole
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.data.batches import Batch
from pangu_alpha.model.initialization import initial_values
from pangu_alpha.model.operators import operators_for
from pangu_alpha.network.parameters import decayed, parameter_shapes, parameter_table
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.reductions import DataParallel
from pangu_alpha.parallel.world import World
from pangu_alpha.training.guard import LARGEST, Guard
from pangu_alpha.training.hooks.hook import StepResult
from pangu_alpha.training.objective import Field
from pangu_alpha.training.objectives import objective_of
from pangu_alpha.training.optimizer import AdamW
from pangu_alpha.training.schedule import row_numbers, update_scalars
from pangu_alpha.training.step import Gradients, OptimizerStep, Update

_DRAWING = 8  # threads at most that draw initial values


class Engine:
    """The training state of a process that holds the whole model.

    Args:
        config: The run.
        world: The ranks that read the other rows.

    All parameters are zero until `compile` and then either `initialize` or `load` have been called.
    """

    def __init__(self, config: TrainConfig, world: World | None = None) -> None:
        self.config = config
        self.world = world or World()
        self.objective = objective_of(config)
        stream = dropout_stream(config, self.world.rank)
        operators = operators_for(config.model, chip=config.run.chip, device_dropout=stream)
        self.model = self.objective.network(operators)
        self.compute_dtype = operators.compute_dtype
        self._shapes = parameter_shapes(config.model)
        self._parameters = parameters_of(self.model, self._shapes)
        trained = ParameterTuple(split_off_frozen(self._parameters, self.objective.trained))
        self.optimizer = AdamW(trained, config.optim, decayed(config.model))
        self._loss = self.objective.loss(self.model)
        self._validation_loss = self.objective.validation_loss(self.model)
        gradients = Gradients(self._loss, trained)
        sums = DataParallel() if self.world.size > 1 else None
        update = Update(self.optimizer, operators, config.optim.clip_norm, sums)
        self._step: Any = OptimizerStep(gradients, update, config.parallel.micro_batches)
        # the sum over a step's rows is scaled by about 1 / what they count, so that float16 sees a mean
        self._nominal_weight = config.samples_per_step * self.objective.nominal_weight

    def compile(self) -> None:
        """Nothing: graphs are compiled when they are first used."""

    def initialize(self) -> None:
        """Gives all that this rank holds of the parameters the values of the run's seed, after `compile`.

        Moments are left as they are, zero in a new engine.
        """
        table, seed = parameter_table(self.config.model), self.config.run.seed
        parameters = self._groups()["model"]

        def draw(name: str) -> np.ndarray:
            return initial_values(table[name], seed, self._box(name))

        # numpy draws outside Python's lock, so threads use the cores that the process may
        with ThreadPoolExecutor(min(_DRAWING, len(os.sched_getaffinity(0)))) as pool:
            for parameter, values in zip(parameters.values(), pool.map(draw, parameters), strict=True):
                assert values.shape == tuple(parameter.shape), (parameter.name, values.shape, parameter.shape)
                parameter.set_data(Tensor(values))

    def step(
        self,
        step: int,
        micro_batches: Sequence[Batch],
        guard: Guard,
        before_update: Callable[[], None] = lambda: None,
    ) -> StepResult:
        """One optimizer step.

        Args:
            step: Steps done before, which gives learning rate and dropout masks.
            micro_batches: This rank's, as many as the run accumulates.
            guard: Gives the loss scale, the largest acceptable norm, and how many updates were skipped; not
                changed.
            before_update: Called when nothing is left to do but what changes parameters and moments.
        """
        scalars = update_scalars(step, self.config.optim, guard.skipped)
        recipe = _float([scalars.learning_rate, scalars.epsilon, scalars.decay])
        scale = _float(guard.scale.value / self._nominal_weight)
        largest = _float(guard.largest_norm())
        inputs = self._inputs(step, micro_batches, self.world.rank, self.world.size)
        losses, norm, applied = self._step(inputs, scale, largest, recipe, before_update)
        weights = np.concatenate([batch.weights for batch in micro_batches])
        sources = np.concatenate([batch.source_ids for batch in micro_batches])
        told = self.world.gather(np.stack([losses, weights, sources]))
        losses, weights, sources = np.concatenate(told, axis=1)
        loss = float(losses.sum() / (weights.sum() + 1e-5))
        return StepResult(loss, reported_norm(norm), bool(applied.asnumpy()), losses, weights, sources)

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float | int]:
        """What the objective measures of held-out batches, by name; nothing is dropped out."""
        return self.objective.measure(self._validation_loss, batches, self.world)

    def tensors(self) -> Iterator[Entry]:
        """What this rank saves: file's stem, name, values, which the next step may change."""
        for stem, group in self._groups().items():
            for name, parameter in group.items():
                if (file := self._stem(stem, name)) is not None:
                    array = parameter.asnumpy()
                    assert array.shape == self._box(name).shape, (name, array.shape, self._box(name))
                    yield file, name, array

    def specs(self) -> Iterator[Spec]:
        """What `tensors` gives, shape and type instead of values; before anything is compiled, too."""
        for stem, group in self._groups().items():
            for name in group:
                if (file := self._stem(stem, name)) is not None:
                    yield file, name, self._box(name).shape, np.float32

    def values(self, names: Iterable[str]) -> Iterator[np.ndarray]:
        """What this rank holds of weights and moments with these names, copied to the host one by one."""
        held = {name: each for group in self._groups().values() for name, each in group.items()}
        for name in names:
            yield held[name].asnumpy()

    def slices(self) -> dict[str, dict[str, Any]]:
        """Where the tensors lie in the wholes, as Manifest.slices; empty where they are whole."""
        return {}

    def load(self, source: Source, stems: Sequence[str], verify: bool) -> None:
        """Takes values of a checkpoint of any plan.

        Args:
            source: The checkpoint.
            stems: What to take: "model", "optimizer".
            verify: Compare checksums while reading; not needed where that has just been done.

        Raises:
            CheckpointError: Any tensor is missing, extra or mis-shaped, then nothing is loaded; or damaged.
        """
        groups = {stem: self._groups()[stem] for stem in stems}
        for stem, group in groups.items():
            expected = {name: (shape, None) for name, shape in self._expected(stem, group, source).items()}
            found = {name: (stored.shape, None) for name, stored in source.tensors[stem].items()}
            compare_tensors(expected, found, f"{source.path}, {stem}")
        for stem, group in groups.items():
            for name, parameter in group.items():
                box = self._box(name)
                assert box.shape == tuple(parameter.shape), (name, box, parameter.shape)
                stored = source.tensors[stem][name]
                parameter.set_data(Tensor(read_box(stored, box, np.float32, verify, name)))

    def _expected(
        self, stem: str, group: Mapping[str, Parameter], source: Source
    ) -> dict[str, tuple[int, ...]]:
        """Whole shapes of the tensors of a checkpoint that fits."""
        if source.manifest.kind == "part":
            return {name: self._shapes[parameter_of(name)] for name in group}
        if stem == "model":
            return self._shapes
        trained = {name: self._shapes[name] for name in self.objective.trained}
        return {prefix + name: shape for prefix in MOMENTS for name, shape in trained.items()}

    def _stem(self, stem: str, name: str) -> str | None:
        """File that this rank saves a tensor in; None if it does not."""
        return stem

    def _box(self, name: str) -> Box:
        """What of a tensor this rank holds."""
        return whole(self._shapes[parameter_of(name)])

    def _groups(self) -> dict[str, dict[str, Parameter]]:
        moments = (*self.optimizer.moments1, *self.optimizer.moments2)
        return {
            "model": {parameter.name: parameter for parameter in self._parameters},
            "optimizer": {parameter.name: parameter for parameter in moments},
        }

    def _inputs(
        self, step: int, micro_batches: Sequence[Batch], rank: int, ranks: int
    ) -> list[tuple[Tensor, ...]]:
        """The objective's fields of each micro-batch of one data-parallel rank of several."""
        numbers = row_numbers(len(micro_batches), rank, ranks, self.config.run.batch_size)
        drawn = [self.objective.draw(step, rows) for rows in numbers]
        fields = self.objective.fields
        return [graph_inputs(fields, batch, each) for batch, each in zip(micro_batches, drawn, strict=True)]


def _float(value: float | Sequence[float]) -> Tensor:
    return Tensor(np.asarray(value, np.float32))


def reported_norm(norm: Tensor) -> float:
    """A step's gradient norm; inf for what no finite norm can be.

    A chip that saturates may give its largest number where the graph has inf.
    """
    value = float(norm.asnumpy())
    return math.inf if value > LARGEST else value


def graph_inputs(
    fields: Sequence[Field], batch: Batch, drawn: Mapping[str, np.ndarray]
) -> tuple[Tensor, ...]:
    """The fields of a batch, and those drawn for its rows, as the graphs take them."""
    return tuple(Tensor(drawn[each.name] if each.drawn else batch[each.name]) for each in fields)


def parameters_of(network: nn.Cell, shapes: Mapping[str, Sequence[int]]) -> list[Parameter]:
    """The parameters of a network, which must be those of its table, in the network's order."""
    found = [parameter for parameter in network.get_parameters() if parameter.name in shapes]
    have = {parameter.name: tuple(parameter.shape) for parameter in found}
    want = {name: tuple(shape) for name, shape in shapes.items()}
    assert have == want, f"not as in network.parameters: {dict(have.items() ^ want.items())}"
    return found


def split_off_frozen(parameters: Sequence[Parameter], trained: Sequence[str]) -> list[Parameter]:
    """Those that are trained; the others are marked as needing no gradient."""
    names = set(trained)
    for parameter in parameters:
        parameter.requires_grad = parameter.name in names
    return [parameter for parameter in parameters if parameter.name in names]


def dropout_stream(config: TrainConfig, rank: int) -> tuple[int, ...] | None:
    """What seeds the device's own dropout on a rank: run.seed and the coordinates that cut attention weights.

    None if masks are to be made by position.
    """
    if config.run.attention_dropout == "positional":
        return None
    place = Mesh.of(config.parallel).coordinates(rank)
    return config.run.seed, place.data, place.tensor
