"""The host side of data parallel training in one process: what is refused, and what one device does."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.parallel.world import World, join_world


@pytest.fixture
def alone(monkeypatch):
    """No launcher has started this process."""
    for name in ("MS_ROLE", "MS_WORKER_NUM", "RANK_TABLE_FILE", "RANK_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_one_device_is_a_world(alone):
    world = join_world(ParallelPlan())
    assert (world.rank, world.size) == (0, 1)
    array = np.array([1.5, np.nan, -0.0])
    np.testing.assert_array_equal(world.gather(array), array[None])
    world.barrier()


def test_processes_and_plan_must_fit(alone):
    with pytest.raises(ValueError, match="need 2 processes, 1 started; use bash run_scripts/run_distribute"):
        join_world(ParallelPlan(dp=2))
    alone.setenv("MS_ROLE", "MS_WORKER")
    alone.setenv("MS_WORKER_NUM", "4")
    with pytest.raises(ValueError, match="need 2 processes, 4 started"):
        join_world(ParallelPlan(dp=2))
    with pytest.raises(ValueError, match="need 1 processes, 4 started"):
        join_world(ParallelPlan())


@pytest.mark.parametrize("text", ["", "two", "-1", "2.0", "²", "9" * 5000])
def test_a_number_of_processes_that_is_none_is_refused(alone, text):
    alone.setenv("RANK_TABLE_FILE", "table.json")
    alone.setenv("RANK_SIZE", text)
    with pytest.raises(ValueError, match="RANK_SIZE: .* in the environment is no number of processes"):
        join_world(ParallelPlan())


def test_bits_of_any_type_survive_the_sum_of_slots():
    """What `gather` sends is exact in float32; the sum with the other rank's zeros is done here by hand."""
    arrays = [np.array([np.pi, np.nan, -1e300]), np.array([-np.inf, 5e-324, 2.0**53 + 1])]
    slots = []
    worlds = [World(rank, 2) for rank in (0, 1)]
    for world, array in zip(worlds, arrays, strict=True):
        world._sum = lambda tensor: slots.append(tensor.asnumpy()) or tensor
        world.gather(array)
    total = slots[0] + slots[1]

    class Sum:
        def __call__(self, tensor):
            return self

        def asnumpy(self):
            return total

    worlds[0]._sum = Sum()
    gathered = worlds[0].gather(arrays[0])
    np.testing.assert_array_equal(gathered.view(np.uint64), np.stack(arrays).view(np.uint64))


@pytest.mark.parametrize("plan", [ParallelPlan(tp=2), ParallelPlan(dp=2, pp=2, micro_batches=2)])
def test_what_no_cpu_trains_is_said_before_processes_are_counted(alone, plan):
    with pytest.raises(ValueError, match="cannot be trained on CPU; MindSpore 2.9 runs partitioned graphs"):
        join_world(plan)
    with pytest.raises(ValueError, match="processes, 1 started"):
        join_world(plan, "Ascend")
