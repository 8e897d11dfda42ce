"""Training's engines for a replay: one whose step is a rank's rewritten graph, one that updates by NumPy.

Apart from the graph and its groups, all is training's own: what a rank feeds it, reads from it, saves and
loads. `recorded` makes an engine record its steps.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn
from mindspore.communication import create_group, get_rank

from pangu_alpha.checkpoint.naming import MOMENTS
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.data.batches import Batch
from pangu_alpha.parallel.world import World
from pangu_alpha.proof.graph.mindir import own_name
from pangu_alpha.proof.replay.reference_optimizer import ReferenceOptimizer
from pangu_alpha.proof.replay.training.files import STEPS, WAITS, state_file
from pangu_alpha.proof.replay.worker import CPU_GRAPH, GROUPS
from pangu_alpha.training.checkpoints import boxes_of_rank
from pangu_alpha.training.engine import Engine
from pangu_alpha.training.guard import Guard
from pangu_alpha.training.hooks.hook import StepResult
from pangu_alpha.training.partitioned.engine import PartitionedEngine
from pangu_alpha.training.step import Gradients


class ReplayedStep:
    """A rank's rewritten graph, with the interface of PartitionedStep.

    Args:
        graph: Path of the rewritten graph (MINDIR).
        trained: Names of the parameters that the rank trains.

    Inputs and outputs are those of PartitionedStep.
    """

    def __init__(self, graph: Path, trained: Sequence[str]) -> None:
        self._net = nn.GraphCell(ms.load(str(graph)))
        self._held = {own_name(name): each for name, each in self._net.parameters_dict().items()}
        for each in self._held.values():  # the graph contains only the shapes of its parameters
            each.set_data(Tensor(np.zeros(each.shape, np.float32)))
        self.controls = self._held["controls"]
        groups = [[self._named(prefix, name) for name in trained] for prefix in ("", *MOMENTS)]
        parameters, moments1, moments2 = groups
        self.update = SimpleNamespace(
            optimizer=SimpleNamespace(parameters=parameters, moments1=moments1, moments2=moments2)
        )

    def _named(self, prefix: str, name: str) -> Parameter:
        parameter = self._held[prefix + name]
        parameter.name = prefix + name
        return parameter

    def set_train(self) -> None:
        """Does nothing: the graph was compiled for training."""

    def compile(self, *inputs: Tensor) -> None:
        """Does nothing: MindSpore compiles the graph when it first runs."""

    def __call__(self, *batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._net(*batch)


class ReplayedEngine(PartitionedEngine):
    """A rank's engine on CPU.

    Args:
        world: All ranks of the plan.
        graphs: Folder with rank_NNNNN/, each with a rank's rewritten graph and the groups of all graphs.
    """

    # The graph has plain operators, but the types of Ascend and its way of detecting an overflow.
    device = "Ascend"

    def __init__(self, config: TrainConfig, world: World, graphs: Path) -> None:
        self._folder = graphs / f"rank_{world.rank:05d}"
        make_groups(json.loads((self._folder / GROUPS).read_text("utf-8")))
        super().__init__(config, world)

    def _make_step(self) -> Any:
        config = self.config
        trained = boxes_of_rank(config.model, config.parallel, self.world.rank)
        return ReplayedStep(self._folder / CPU_GRAPH, list(trained))


class ReferenceEngine(Engine):
    """The engine of one process that holds everything and updates with NumPy, not with training's code."""

    def __init__(self, config: TrainConfig, world: World) -> None:
        super().__init__(config, world)
        self._gradients = Gradients(self._loss, ParameterTuple(self.optimizer.parameters))
        self._numpy: ReferenceOptimizer | None = None  # made by the first step, after values were loaded

    def step(
        self,
        step: int,
        micro_batches: Sequence[Batch],
        guard: Guard,
        before_update: Callable[[], None] = lambda: None,
    ) -> StepResult:
        """See Engine.step; the result has no losses of rows."""
        parameters = self.optimizer.parameters
        if self._numpy is None:
            values = {each.name: each.asnumpy() for each in parameters}
            self._numpy = ReferenceOptimizer(self.config.optim, values)
        scale = np.float32(guard.scale.value / self._nominal_weight)
        sums: list[np.ndarray] | None = None
        losses, weight = 0.0, 0.0
        for batch, fields in zip(micro_batches, self._inputs(step, micro_batches, 0, 1), strict=True):
            gradients, found, _ = self._gradients(Tensor(scale), *fields)
            arrays = [each.asnumpy().astype(np.float64) for each in gradients]
            sums = arrays if sums is None else [a + b for a, b in zip(sums, arrays, strict=True)]
            losses += float(found.asnumpy().sum(dtype=np.float64))
            weight += float(batch.weights.sum(dtype=np.float64))
        before_update()
        assert sums is not None  # because a step has at least one micro-batch
        named = {each.name: array for each, array in zip(parameters, sums, strict=True)}
        norm, applied = self._numpy.step(step, named, weight, float(scale))
        state = self._numpy.state()
        for each in (*parameters, *self.optimizer.moments1, *self.optimizer.moments2):
            each.set_data(Tensor(state[each.name]))
        none = np.zeros(0)
        return StepResult(losses / (weight + 1e-5), norm, applied, none, none, none)


def make_groups(groups: dict[str, Sequence[int]]) -> None:
    """Makes the groups that graphs name; all ranks make those of all graphs in the same order.

    Args:
        groups: Ranks by name.
    """
    for name, ranks in sorted(groups.items()):
        if get_rank() in ranks:
            create_group(name, list(ranks))


def recorded(
    make: Callable[..., Engine], folder: Path, waits: int | None = None
) -> Callable[[TrainConfig, World], Engine]:
    """Wraps the maker of an engine so that the engine records every step in a folder.

    Each step writes state_NNNNNN.npz, the parameters and moments after so many steps, and then a line of
    steps.jsonl. The first one also writes the state before it.

    Args:
        make: Makes the engine, given the run and the world.
        folder: An existing folder.
        waits: Number of steps of the run after which the process waits for a signal; None for never.
    """

    def make_recorded(config: TrainConfig, world: World) -> Engine:
        engine = make(config, world)
        take_step = engine.step

        def step(
            number: int,
            micro_batches: Sequence[Batch],
            guard: Guard,
            before_update: Callable[[], None] = lambda: None,
        ) -> StepResult:
            if not state_file(folder, number).exists():
                _write_state(folder, number, engine)
            scale = guard.scale.value
            result = take_step(number, micro_batches, guard, before_update)
            _write_state(folder, number + 1, engine)
            line = {
                "step": number,
                "loss": result.loss,
                "norm": result.norm,
                "applied": result.applied,
                "scale": scale,
            }
            with (folder / STEPS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            if number + 1 == waits:
                _wait_for_signal(folder / WAITS)
            return result

        setattr(engine, "step", step)  # noqa: B010  # for this one engine only, whatever its class
        return engine

    return make_recorded


def _wait_for_signal(file: Path) -> None:
    """Creates a file, and waits until the sender of the signal has removed it."""
    file.touch()
    while file.exists():
        time.sleep(0.02)


def _write_state(folder: Path, steps: int, engine: Engine) -> None:
    held = engine.optimizer
    parameters = (*held.parameters, *held.moments1, *held.moments2)
    np.savez(state_file(folder, steps), **{each.name: each.asnumpy() for each in parameters})
