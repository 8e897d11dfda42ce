"""What a run trains: the network, its loss and named inputs, its trained parameters, its data and its units.

The loop, the engines, checkpoints and reports take all of this from an Objective and know no network.
An objective is made of a run's configuration alone and holds no values; its cells are made by the engines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.data.batches import Batch, TrainingBatches
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.parallel.axes import degree
from pangu_alpha.training.hooks.hook import Hook, Run
from pangu_alpha.training.reporting.units import Units

if TYPE_CHECKING:  # an objective is described without MindSpore
    from mindspore import nn

    from pangu_alpha.model.operators import Operators
    from pangu_alpha.parallel.world import World


@dataclass(frozen=True)
class Field:
    """One input of a loss.

    Args:
        name: In a batch, or among what `Objective.draw` gives.
        dtype: numpy's type.
        shape: Of a row.
        axes: Axis of the mesh that each dimension is cut over, the rows' first; None is not cut.
        drawn: Made anew for every step from the rows' numbers, and not read: dropout's keys.
    """

    name: str
    dtype: Any
    shape: tuple[int, ...]
    axes: tuple[str | None, ...] = ("dp",)
    drawn: bool = False

    def cuts(self, plan: ParallelPlan) -> tuple[int, ...]:
        """Into how many parts each dimension is cut under a plan."""
        axes = (*self.axes, *[None] * (1 + len(self.shape) - len(self.axes)))
        return tuple(degree(axis, plan) for axis in axes)


@dataclass(frozen=True)
class Streams:
    """The data of a run.

    Args:
        training: Without end.
        validation: The held-out batches; None evaluates nothing.
        identity: Digest of what gives the records' numbers their meaning, such as the tokenizer; a
            checkpoint of another identity is refused. None where there is no such thing.
        state: What a checkpoint says about the data besides its place: plain values.
        files: To be kept in the output folder, by the name that they get there.
    """

    training: TrainingBatches
    validation: Iterable[Batch] | None = None
    identity: str | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)


class Objective(ABC):
    """One kind of training.

    Args:
        config: The run.

    Attributes:
        fields: What the loss takes, in its order: those of a batch, then those that are drawn.
        units: See Units.
        nominal_weight: About how much a row counts in the loss; it scales gradients in float16, and changes
            no update.
        partitions: Whether MindSpore can split the loss over several Ascend devices by a plan; if not, every
            device holds the whole network and reads its own rows.
    """

    fields: tuple[Field, ...]
    units: Units
    nominal_weight: float
    partitions = False

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the parameters that are trained: all. The others are saved and loaded, no more."""
        return tuple(parameter_shapes(self.config.model))

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the parameters that are not trained."""
        return frozenset(parameter_shapes(self.config.model)) - frozenset(self.trained)

    @abstractmethod
    def network(self, operators: Operators) -> nn.Cell:
        """The network without values; its parameters are those of network.parameters.

        Args:
            operators: Of the device.
        """

    @abstractmethod
    def loss(self, network: nn.Cell) -> nn.Cell:
        """A cell whose construct takes the fields and gives the loss of a micro-batch.

        Args:
            network: From `network`.

        Returns:
            Its outputs are three float32 tensors: the sum of the losses, a scalar; that of each row, [B];
            and how much the rows count together, a scalar. The step's loss is the quotient of sums over all
            micro-batches and devices, so all rows count alike wherever they stand.
        """

    @abstractmethod
    def validation_loss(self, network: nn.Cell) -> nn.Cell:
        """A cell of its own for `measure`, so that it is compiled without what only training does."""

    def partitioned_loss(self, network: nn.Cell) -> nn.Cell:
        """A cell that takes the fields and gives the first of the outputs of `loss`, for MindSpore to split.

        Only asked for where `partitions` is true.
        """
        raise NotImplementedError

    def draw(self, step: int, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """The drawn fields of some rows of a step: a pure function of run.seed, step and row.

        Args:
            step: Steps done before.
            rows: int64 [B], number of each row in the step, over all micro-batches and devices.
        """
        return {}

    @abstractmethod
    def open_data(self, rank: int, world_size: int) -> Streams:
        """The run's data, checked.

        Args:
            rank: Place among the devices that read different rows.
            world_size: Number of those devices.

        Raises:
            ValueError: The data are damaged or do not fit the network.
        """

    @abstractmethod
    def measure(self, loss: nn.Cell, batches: Iterable[Batch], world: World) -> dict[str, float | int]:
        """What a validation tells, by its keys in metrics.jsonl; "validation_loss" is drawn as a curve.

        Args:
            loss: From `validation_loss`.
            batches: Of this rank, all of one shape.
            world: The ranks that read the other rows; every rank gets the result of all.
        """

    def validation_text(self, measured: Mapping[str, float | int]) -> str:
        """What `measure` gave, for the console."""
        return "  ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in measured.items())

    def hooks(self, run: Run) -> Sequence[Hook]:
        """What else this kind of training does every so many steps; before a step is saved."""
        return ()
