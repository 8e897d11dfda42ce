"""The processes of a data parallel run as the host sees them: join, gather arrays, wait for each other.

Knows numpy arrays; what happens inside a step's graph is sums.py's.
"""

from __future__ import annotations

import os
import re

import numpy as np
from mindspore import Tensor, ops

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.files.shown import quoted
from pangu_alpha.parallel.mesh import Mesh

_LAUNCHED = ("MS_ROLE", "RANK_TABLE_FILE")  # msrun sets the one, a rank table start the other


class World:
    """The ranks that read different rows, as seen by the host.

    Args:
        rank: This process's place among them.
        size: Their number.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        assert 0 <= rank < size, (rank, size)
        self.rank = rank
        self.size = size
        # called outside a cell, so that no parallel context splits it
        self._sum = ops.AllReduce(ops.ReduceOp.SUM) if size > 1 else None

    def gather(self, array: np.ndarray) -> np.ndarray:
        """The arrays of all ranks, bit for bit, whatever their type; all of one shape.

        The bits travel as 16-bit numbers, which float32 holds exactly, and each rank adds its own to the
        others' zeros: on CPU, MindSpore 2.9 sums floats of 16 and 32 bits and gathers nothing wider.

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
    """The number of processes of this run, as what started them says."""
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
    """Joins the other workers of a run; call it after `use_device`.

    Args:
        plan: How the run is spread; on CPU tp and pp must be 1.
        device: Device in use, "CPU" or "Ascend".

    Raises:
        ValueError: The processes that were started are not those the plan needs.
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
