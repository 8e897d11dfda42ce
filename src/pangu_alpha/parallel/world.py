"""The processes of a data parallel run, as the host sees them: joins them, gathers arrays, and waits.

Knows numpy arrays; parallel.reductions has what happens inside the graph of a step.
"""

from __future__ import annotations

import os
import re

import numpy as np
from mindspore import Tensor, ops

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.files.shown import quoted
from pangu_alpha.parallel.mesh import Mesh

_LAUNCHED = ("MS_ROLE", "RANK_TABLE_FILE")  # msrun sets the first, a start by rank table the second


class World:
    """The ranks that read different rows, as seen by the host.

    Args:
        rank: Index of this process among them.
        size: Number of ranks.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        assert 0 <= rank < size, (rank, size)
        self.rank = rank
        self.size = size
        # This operator is called outside a cell, so that no parallel context splits it.
        self._sum = ops.AllReduce(ops.ReduceOp.SUM) if size > 1 else None

    def gather(self, array: np.ndarray) -> np.ndarray:
        """Gathers the arrays of all ranks bit for bit; they may have any type, but must have one shape.

        The bits travel as 16-bit numbers, which float32 holds exactly, and each rank adds its own to the
        others'
        zeros: on CPU, MindSpore 2.9 sums only floats of 16 and 32 bits, and gathers nothing wider. A plain
        gather can replace this once the CPU backend supports 64-bit types.

        Returns:
            [size, *array.shape], by rank.
        """
        if self._sum is None:
            return array[None]
        bits = np.ascontiguousarray(array).reshape(-1).view(np.uint16)
        slots = np.zeros((self.size, bits.size), np.float32)
        slots[self.rank] = bits
        summed = self._sum(Tensor(slots)).asnumpy()
        return summed.astype(np.uint16).view(array.dtype).reshape(self.size, *array.shape)

    def barrier(self) -> None:
        """Returns when every rank has called it."""
        self.gather(np.zeros(1, np.float32))


def _number_started() -> int:
    """Number of processes of this run, according to the environment that their launcher set."""
    if not any(name in os.environ for name in _LAUNCHED):
        return 1
    name = "MS_WORKER_NUM" if "MS_WORKER_NUM" in os.environ else "RANK_SIZE"
    text = os.environ.get(name, "1")
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(
            f"{name}: {quoted(text)} in the environment is no number of processes; start by run_scripts/, or "
            "unset it"
        )
    return int(text)


def join_world(plan: ParallelPlan, device: str = "CPU") -> World:
    """Joins the other processes of a run; call it after `use_device`.

    Args:
        plan: The run's plan; on CPU, tp and pp must be 1.
        device: Device in use, "CPU" or "Ascend".

    Raises:
        ValueError: The number of processes started is not the one that the plan needs.
    """
    if device == "CPU" and Mesh.of(plan).row_holders > 1:
        raise ValueError(
            f"parallel: tp {plan.tp} and pp {plan.pp} cannot be trained on CPU; MindSpore 2.9 runs "
            "partitioned graphs on Ascend only. `python src/plan.py replay` shows on CPU that they are right"
        )
    started = _number_started()
    if started != plan.devices:
        raise ValueError(
            f"parallel: dp {plan.dp}, tp {plan.tp}, pp {plan.pp} need {plan.devices} processes, {started} "
            f"started; use bash run_scripts/run_distribute_train.sh --nproc {plan.devices}"
        )
    if plan.devices == 1:
        return World()
    from mindspore.communication import get_group_size, get_rank, init

    init()
    assert get_group_size() == plan.devices, (get_group_size(), plan.devices)
    return World(get_rank(), get_group_size())
