"""One process of a replay: runs a rank's rewritten graph on CPU, or the reference on one device.

python -m pangu_alpha.proof.replay.worker rank FOLDER        reads graph, groups and inputs of the rank
python -m pangu_alpha.proof.replay.worker reference FOLDER   reads replay.json; writes initial values too
python -m pangu_alpha.proof.replay.worker scheduler ""       lets ranks find each other
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pangu_alpha.proof.dry_run.job import Job

CPU_GRAPH, GROUPS, INPUTS, STATES = "cpu.mindir", "groups.json", "inputs.npz", "states.npz"
INITIAL, JOB = "initial.npz", "replay.json"


def run_rank(folder: Path) -> None:
    """Runs all steps of a rank's graph.

    Reads groups.json (name -> ranks, the groups of all ranks), cpu.mindir, and inputs.npz ("parameter/NAME"
    and, for every step, "STEP/batch/0..4", with dropout also 5, and "STEP/controls"). Writes states.npz
    ("STEP/loss", "STEP/norm", "STEP/applied", and "STEP/state/NAME" after the step; step -1 stands for the
    state before the first step).
    """
    import mindspore as ms
    from mindspore import Tensor, nn
    from mindspore.communication import create_group, get_rank, init

    from pangu_alpha.parallel.context import use_device
    from pangu_alpha.proof.graph.mindir import own_name

    use_device("CPU")
    init()
    for name, ranks in sorted(json.loads((folder / GROUPS).read_text("utf-8")).items()):
        if get_rank() in ranks:
            create_group(name, ranks)
    inputs = np.load(folder / INPUTS)
    net = nn.GraphCell(ms.load(str(folder / CPU_GRAPH)))
    parameters = {own_name(name): parameter for name, parameter in net.parameters_dict().items()}
    for name, parameter in parameters.items():
        if name != "controls":
            parameter.set_data(Tensor(inputs[f"parameter/{name}"]))
    states: dict[str, np.ndarray] = {}
    record(states, -1, (), parameters.items())
    steps = sum(key.endswith("/controls") for key in inputs)
    fields = sum(key.startswith("0/batch/") for key in inputs)
    for step in range(steps):
        parameters["controls"].set_data(Tensor(inputs[f"{step}/controls"]))
        outputs = net(*(Tensor(inputs[f"{step}/batch/{i}"]) for i in range(fields)))
        record(states, step, [each.asnumpy() for each in outputs], parameters.items())
    write_states(folder, states)


def run_reference(folder: Path) -> None:
    """Trains the same network on one device: gradients by MindSpore, updates by reference_optimizer.

    Reads replay.json (the legs, each a job and its number of steps). Writes initial.npz, and states.npz of
    the last leg in the form that `run_rank` has.
    """
    import mindspore as ms

    from pangu_alpha.config.schema import build
    from pangu_alpha.parallel.context import use_device
    from pangu_alpha.proof.dry_run.job import Job
    from pangu_alpha.proof.replay.reference_optimizer import loss_scale
    from pangu_alpha.proof.replay.rows import (
        Overflow,
        Place,
        keys_of_step,
        micro_batches,
        places,
        rows_of_step,
    )

    use_device("CPU")
    request = json.loads((folder / JOB).read_text("utf-8"))
    legs = [(build(Job, leg["job"]), leg["steps"]) for leg in request["legs"]]
    overflow = Overflow(*request["overflow"])
    reference = _Reference(legs[0][0])
    np.savez(folder / INITIAL, **reference.optimizer.parameters)
    end = Place()
    for job, steps in legs:
        reference.follow(job)
        states: dict[str, np.ndarray] = {}
        record(states, -1, (), reference.state())
        *begins, end = places(job, steps, end)
        for number, place in enumerate(begins):
            rows = rows_of_step(job, place.samples, overflow.by_weight(place.step))
            batches = micro_batches(job, (*rows, *keys_of_step(job, place.step)))
            tensors = [tuple(map(ms.Tensor, batch)) for batch in batches]
            scale = overflow.loss_scale(place.step) or loss_scale(job.optim)
            outputs = reference.step(place.step, batches, tensors, scale)
            record(states, number, outputs, reference.state())
    write_states(folder, states)


def run_scheduler(_: Path) -> None:
    """Lets the ranks find each other; returns when all of them have left."""
    from mindspore.communication import init

    init()


class _Reference:
    """One device's training: gradients by MindSpore, updates by NumPy."""

    def __init__(self, job: Job) -> None:
        from mindspore import ParameterTuple

        from pangu_alpha.model.operators import operators_for
        from pangu_alpha.model.pangu import PanguAlpha
        from pangu_alpha.proof.replay.reference_optimizer import ReferenceOptimizer

        assert job.seed is not None  # replay.replay has checked it
        self.model = PanguAlpha(job.model, job.seed, operators_for(job.model, "plain"))
        self.parameters = ParameterTuple(self.model.trainable_params())
        roughen(self.parameters, job.seed)
        values = {each.name: each.asnumpy() for each in self.parameters}
        self.optimizer = ReferenceOptimizer(job.optim, values)

    def follow(self, job: Job) -> None:
        """Switches to another job, whose batches the next steps read."""
        from pangu_alpha.training.loss import BatchLoss, TokenLoss
        from pangu_alpha.training.step import Gradients

        self.job = job
        self.gradients = Gradients(BatchLoss(TokenLoss(self.model)), self.parameters)

    def step(
        self, step: int, batches: Sequence[Sequence[np.ndarray]], tensors: Sequence[Any], factor: float
    ) -> list[np.generic]:
        """Takes one optimizer step with the loss multiplied by a factor.

        Returns:
            Sum of the losses, norm of the gradients, and whether the update was applied.
        """
        import mindspore as ms

        # Divided by all tokens of the step, whether they count or not; any other scale gives the same update.
        scale = np.float32(factor / sum(batch[0].size for batch in batches))
        found = [self.gradients(ms.Tensor(scale), *each) for each in tensors]
        sums = [sum(each.asnumpy() for each in parts) for parts in zip(*(f[0] for f in found), strict=True)]
        names = [each.name for each in self.parameters]
        tokens = sum(float(batch[2].sum(dtype=np.float64)) for batch in batches)
        norm, applied = self.optimizer.step(step, dict(zip(names, sums, strict=True)), tokens, float(scale))
        for parameter in self.parameters:
            parameter.set_data(ms.Tensor(self.optimizer.parameters[parameter.name]))
        losses = sum(float(rows.asnumpy().sum(dtype=np.float64)) for _, rows, _ in found)
        return [np.float32(losses), np.float32(norm), np.bool_(applied)]

    def state(self) -> Iterable[tuple[str, np.ndarray]]:
        """Parameters and moments by name."""
        return self.optimizer.state().items()


def roughen(parameters: Iterable, seed: int) -> None:
    """Enlarges the initial values of a narrow network; the official ones are made for thousands of columns.

    Matrices and tables get a size at which attention is far from uniform; biases and norms get noise, so that
    none is a trivial 0 or 1.
    """
    import mindspore as ms

    random = np.random.default_rng(seed)
    for parameter in parameters:
        values = parameter.asnumpy()
        if values.ndim == 1:
            values = values + random.normal(0.0, 0.05, values.shape)
        else:
            values = values * (values.shape[-1] ** -0.5 / values.std())
        parameter.set_data(ms.Tensor(values.astype(np.float32)))


def write_states(folder: Path, states: dict[str, np.ndarray]) -> None:
    """Writes states.npz under another name first, so that the file is complete as soon as it exists."""
    np.savez(folder / ("new." + STATES), **states)
    (folder / ("new." + STATES)).rename(folder / STATES)


def record(
    states: dict[str, np.ndarray], step: int, outputs: Iterable[Any], parameters: Iterable[tuple[str, Any]]
) -> None:
    """Stores the results of a step.

    Args:
        states: Dictionary that gets the results.
        step: Number of the step, from 0; -1 for the state before the first step.
        outputs: Loss, norm and applied of the step, or nothing.
        parameters: Pairs of names and arrays (or MindSpore parameters).
    """
    for name, value in zip(("loss", "norm", "applied"), outputs, strict=False):
        states[f"{step}/{name}"] = np.asarray(value)
    for name, parameter in parameters:
        array = parameter if isinstance(parameter, np.ndarray) else parameter.asnumpy()
        states[f"{step}/state/{name}"] = array.copy()


if __name__ == "__main__":
    _RUNS = {"rank": run_rank, "reference": run_reference, "scheduler": run_scheduler}
    _RUNS[sys.argv[1]](Path(sys.argv[2]))
