"""The network, its optimizer and its graphs as one object that steps, evaluates, saves and loads.

Knows arrays and scalars; knows nothing of files, data order or reports, nor of any particular network.
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

_DRAWING = 8  # most threads that draw initial values


class Engine:
    """The training state of a process that holds the whole model.

    All parameters are zero until first `compile` and then either `initialize` or `load` have been called.

    Args:
        world: The ranks that read the other rows; None for a single process.
    """

    def __init__(self, config: TrainConfig, world: World | None = None) -> None:
        self.config = config
        self.world = world or World()
        self.objective = objective_of(config)
        stream = dropout_stream(config, self.world.rank)
        precision = config.run.float32_matmul_precision
        operators = operators_for(
            config.model, chip=config.run.chip, device_dropout=stream, precision=precision
        )
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
        # The sum over a step's rows is scaled by about 1 / their weight, so that float16 computes with a
        # mean.
        self._nominal_weight = config.samples_per_step * self.objective.nominal_weight

    def compile(self) -> None:
        """Does nothing, because graphs are compiled when they are first used."""

    def initialize(self) -> None:
        """Sets this rank's boxes of all parameters to the seed's initial values; call `compile` first.

        Moments are left unchanged; they are zero in a new engine.
        """
        table, seed = parameter_table(self.config.model), self.config.run.seed
        parameters = self._groups()["model"]

        def draw(name: str) -> np.ndarray:
            return initial_values(table[name], seed, self._box(name))

        # numpy draws without holding Python's lock, so threads use all cores that the process may use.
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
        """Takes one optimizer step.

        Args:
            step: Number of steps done before; learning rate and dropout masks depend on it.
            micro_batches: This rank's micro-batches of the step, `parallel.micro_batches` of them.
            guard: Gives the loss scale, the largest acceptable norm, and the number of skipped updates. It is
                not changed.
            before_update: Called immediately before parameters and moments change.
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
        """Returns what the objective measures of held-out batches, by name, without dropout."""
        return self.objective.measure(self._validation_loss, batches, self.world)

    def tensors(self) -> Iterator[Entry]:
        """Yields what this rank saves: file stem, name, and values that the next step may change."""
        for stem, group in self._groups().items():
            for name, parameter in group.items():
                if (file := self._stem(stem, name)) is not None:
                    array = parameter.asnumpy()
                    assert array.shape == self._box(name).shape, (name, array.shape, self._box(name))
                    yield file, name, array

    def specs(self) -> Iterator[Spec]:
        """Yields the entries of `tensors`, but shape and type for the values; works before `compile`, too."""
        for stem, group in self._groups().items():
            for name in group:
                if (file := self._stem(stem, name)) is not None:
                    yield file, name, self._box(name).shape, np.float32

    def values(self, names: Iterable[str]) -> Iterator[np.ndarray]:
        """Yields this rank's boxes of the named weights and moments, copied to the host one by one."""
        held = {name: each for group in self._groups().values() for name, each in group.items()}
        for name in names:
            yield held[name].asnumpy()

    def slices(self) -> dict[str, dict[str, Any]]:
        """Where this rank's boxes lie in the tensors, as Manifest.slices; empty, because they are whole."""
        return {}

    def begin_from(self, source: Source) -> None:
        """Sets all parameters for a new run from the weights of a checkpoint; call `compile` first.

        What the objective's initial network lacks gets the seed's initial values.

        Raises:
            CheckpointError: See `load`.
        """
        there = parameter_shapes(self.objective.initial_model)
        if there == self._shapes:
            return self.load(source, ["model"], verify=True)
        group = self._groups()["model"]
        shared = {name: group[name] for name in group if name in there}
        other = [name for name in shared if there[name] != self._shapes[name]]
        assert shared and not other, f"Objective.initial_model: has other parameters: {other or [*there]}"
        _compare_shapes("model", there, source)
        self.initialize()
        self._read("model", shared, source, verify=True)

    def load(self, source: Source, stems: Sequence[str], verify: bool) -> None:
        """Loads values from a checkpoint of any plan.

        Args:
            source: The checkpoint.
            stems: What to load: "model", "optimizer".
            verify: Whether to compare checksums while reading; not needed if that has just been done.

        Raises:
            CheckpointError: A tensor is missing, superfluous or of a wrong shape, and then nothing is loaded;
                or its bytes are damaged.
        """
        groups = {stem: self._groups()[stem] for stem in stems}
        for stem, group in groups.items():
            _compare_shapes(stem, self._expected(stem, group, source), source)
        for stem, group in groups.items():
            self._read(stem, group, source, verify)

    def _read(self, stem: str, group: Mapping[str, Parameter], source: Source, verify: bool) -> None:
        for name, parameter in group.items():
            box = self._box(name)
            assert box.shape == tuple(parameter.shape), (name, box, parameter.shape)
            stored = source.tensors[stem][name]
            parameter.set_data(Tensor(read_box(stored, box, np.float32, verify, name)))

    def _expected(
        self, stem: str, group: Mapping[str, Parameter], source: Source
    ) -> dict[str, tuple[int, ...]]:
        """The whole shapes that the tensors of a suitable checkpoint have."""
        if source.manifest.kind == "part":
            return {name: self._shapes[parameter_of(name)] for name in group}
        if stem == "model":
            return self._shapes
        trained = {name: self._shapes[name] for name in self.objective.trained}
        return {prefix + name: shape for prefix in MOMENTS for name, shape in trained.items()}

    def _stem(self, stem: str, name: str) -> str | None:
        """Stem of the file in which this rank saves a tensor; None if it does not save it."""
        return stem

    def _box(self, name: str) -> Box:
        """This rank's box of a tensor, that is, the part that it holds."""
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
        """The objective's fields of each micro-batch, for one of several data-parallel ranks."""
        numbers = row_numbers(len(micro_batches), rank, ranks, self.config.run.batch_size)
        drawn = [self.objective.draw(step, rows) for rows in numbers]
        fields = self.objective.fields
        return [graph_inputs(fields, batch, each) for batch, each in zip(micro_batches, drawn, strict=True)]


def _compare_shapes(stem: str, shapes: Mapping[str, tuple[int, ...]], source: Source) -> None:
    expected = {name: (shape, None) for name, shape in shapes.items()}
    found = {name: (stored.shape, None) for name, stored in source.tensors[stem].items()}
    compare_tensors(expected, found, f"{source.path}, {stem}")


def _float(value: float | Sequence[float]) -> Tensor:
    return Tensor(np.asarray(value, np.float32))


def reported_norm(norm: Tensor) -> float:
    """A step's gradient norm, with inf for a norm too large to be a finite one.

    A chip that saturates may give its largest number where the graph has inf.
    """
    value = float(norm.asnumpy())
    return math.inf if value > LARGEST else value


def graph_inputs(
    fields: Sequence[Field], batch: Batch, drawn: Mapping[str, np.ndarray]
) -> tuple[Tensor, ...]:
    """Arranges the fields of a batch, and those drawn for its rows, as inputs of the graphs."""
    return tuple(Tensor(drawn[each.name] if each.drawn else batch[each.name]) for each in fields)


def parameters_of(network: nn.Cell, shapes: Mapping[str, Sequence[int]]) -> list[Parameter]:
    """Returns the parameters of a network in its order, checked against the table of parameters."""
    found = list(network.get_parameters())
    have = {parameter.name: tuple(parameter.shape) for parameter in found}
    want = {name: tuple(shape) for name, shape in shapes.items()}
    assert have == want, f"not as in network.parameters: {dict(have.items() ^ want.items())}"
    return found


def split_off_frozen(parameters: Sequence[Parameter], trained: Sequence[str]) -> list[Parameter]:
    """Returns the parameters that are trained, and marks the others as needing no gradient."""
    names = set(trained)
    unknown = sorted(names - {parameter.name for parameter in parameters})
    assert names, "Objective.trained: names no parameter, so there is nothing to train"
    assert not unknown, f"Objective.trained: not among the network's parameters: {', '.join(unknown)}"
    for parameter in parameters:
        parameter.requires_grad = parameter.name in names
    return [parameter for parameter in parameters if parameter.name in names]


def dropout_stream(config: TrainConfig, rank: int) -> tuple[int, ...] | None:
    """Seeds of the device's own dropout on a rank: run.seed and the coordinates that cut attention weights.

    None if masks are made by position.
    """
    if config.run.attention_dropout == "positional":
        return None
    place = Mesh.of(config.parallel).coordinates(rank)
    return config.run.seed, place.data, place.tensor
