"""What a run trains: network, loss and its named inputs, trained parameters, data, and units.

The loop, the engines, checkpoints and reports take all of this from an Objective and know no network. An
objective is made from a run's configuration alone and holds no values; the engines make its cells.
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

if TYPE_CHECKING:  # so that an objective can be described without importing MindSpore
    from mindspore import nn

    from pangu_alpha.model.operators import Operators
    from pangu_alpha.parallel.world import World


@dataclass(frozen=True)
class Field:
    """One input of a loss.

    Args:
        name: Its name in a batch, or in the result of `Objective.draw`.
        dtype: numpy's type.
        shape: Shape of one row.
        axes: For each dimension, beginning with the rows, the axis of the mesh that it is cut over; None if
            it is whole.
        drawn: Whether it is made for every step from the rows' numbers, like dropout's keys, instead of read.
    """

    name: str
    dtype: Any
    shape: tuple[int, ...]
    axes: tuple[str | None, ...] = ("dp",)
    drawn: bool = False

    def cuts(self, plan: ParallelPlan) -> tuple[int, ...]:
        """Number of parts into which a plan cuts each dimension."""
        axes = (*self.axes, *[None] * (1 + len(self.shape) - len(self.axes)))
        return tuple(degree(axis, plan) for axis in axes)


@dataclass(frozen=True)
class Streams:
    """The data of a run.

    Args:
        training: The endless stream of training batches.
        validation: The held-out batches; None evaluates nothing.
        identity: Digest of what gives the records' numbers their meaning, such as the tokenizer; a checkpoint
            with another identity is refused. None if there is no such thing.
        state: What a checkpoint stores about the data besides the place in it: plain values.
        files: Files to copy into the output folder, by their names there.
    """

    training: TrainingBatches
    validation: Iterable[Batch] | None = None
    identity: str | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)


class Objective(ABC):
    """One kind of training.

    Attributes:
        fields: The inputs of the loss in order: first those of a batch, then those that are drawn.
        units: See Units.
        nominal_weight: About how much a row counts in the loss. It scales gradients in float16, and does not
            change an update.
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
        """Names of the parameters that are trained; by default all. The others are only saved and loaded."""
        return tuple(parameter_shapes(self.config.model))

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the parameters that are not trained."""
        return frozenset(parameter_shapes(self.config.model)) - frozenset(self.trained)

    @property
    def initial_model(self) -> Any:
        """Configuration of the network whose checkpoints run.initial may name; by default the run's own.

        Parameters that both networks have, by name, get the checkpoint's values, all others the seed's: so an
        adapter is put on a network that was trained without it.
        """
        return self.config.model

    @property
    def splits(self) -> bool:
        """Whether a plan may split the network: MindSpore can, and every parameter has moments to save."""
        return self.partitions and not self.frozen

    @abstractmethod
    def network(self, operators: Operators) -> nn.Cell:
        """Makes the network without values; its parameters are those of network.parameters."""

    @abstractmethod
    def loss(self, network: nn.Cell) -> nn.Cell:
        """Makes a cell whose construct takes the fields and returns the loss of a micro-batch.

        Args:
            network: What `network` returned; the validation loss has the same cell, and so its values.

        Returns:
            A cell with three float32 outputs: the sum of the losses, a scalar; the loss of each row, [B]; and
            how much the rows count together, a scalar. The step's loss is the quotient of the sums over all
            micro-batches and devices, so it does not matter which of them a row is in.
        """

    @abstractmethod
    def validation_loss(self, network: nn.Cell) -> nn.Cell:
        """Makes a separate cell for `measure`, compiled without the parts that only training needs."""

    def partitioned_loss(self, network: nn.Cell) -> nn.Cell:
        """Makes a cell that takes the fields and returns the first output of `loss`, for MindSpore to split.

        It is called only if `partitions` is true.
        """
        raise NotImplementedError

    def draw(self, step: int, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Makes the drawn fields of some rows of a step; a pure function of run.seed, step and row.

        Args:
            step: Number of steps done before.
            rows: int64 [B], number of each row in the step, over all micro-batches and devices.
        """
        return {}

    @abstractmethod
    def open_data(self, rank: int, world_size: int) -> Streams:
        """Opens and checks the run's data.

        Args:
            rank: Index of this device among the devices that read different rows.
            world_size: Number of those devices.

        Raises:
            ValueError: The data are damaged or do not fit the network.
        """

    @abstractmethod
    def measure(self, loss: nn.Cell, batches: Iterable[Batch], world: World) -> dict[str, float | int]:
        """Measures held-out batches; returns values by key in metrics.jsonl ("validation_loss" is drawn).

        Args:
            loss: From `validation_loss`.
            batches: Batches of this rank, all of one shape.
            world: The ranks that read the other rows; every rank returns the result over all of them.
        """

    def validation_text(self, measured: Mapping[str, float | int]) -> str:
        """Formats the result of `measure` for the console."""
        return "  ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in measured.items())

    def hooks(self, run: Run) -> Sequence[Hook]:
        """Returns additional hooks of this kind of training; they run before a step is saved."""
        return ()
