"""Copies of a weight or moment that differ between ranks stop the run by name."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import build_train_config
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.parallel.layout import layouts
from pangu_alpha.training.checks.replicas import ReplicaCheck, ReplicasDifferError, copied_tensors, holders
from pangu_alpha.training.guard import TrainingHaltedError

PLAN = {"dp": 2, "tp": 2, "pp": 2, "micro_batches": 2}


@pytest.fixture
def config(settings):
    def make(**plan):
        return build_train_config(settings | {"parallel": plan or PLAN})

    return make


class Slices:
    """A rank's slices of whole tensors that are functions of their names."""

    def __init__(self, config, rank, partitioned=True):
        plan = config.parallel if partitioned else ParallelPlan(dp=config.parallel.dp)
        self.placed, self.plan, self.rank = (
            layouts(config.model, plan),
            plan,
            rank,
        )
        self.read, self.changes = [], {}

    def values(self, names):
        for name in names:
            self.read.append(name)
            moment = next((each for each in ("adam_m.", "adam_v.") if name.startswith(each)), "")
            layout = self.placed[name.removeprefix(moment)]
            random = np.random.default_rng([len(name), *map(ord, name)])
            whole = random.random(layout.shape, np.float32)
            start = layout.start(self.plan, self.rank)
            cut = tuple(slice(a, a + n) for a, n in zip(start, layout.slice_shape, strict=True))
            array = np.ascontiguousarray(whole[cut])
            yield self.changes.get(name, lambda array: array)(array)


def compared(crowd, config, changes=lambda rank: {}, partitioned=True, step=1):
    """What the ranks' checks read, or the error that one of them raises."""

    def work(world):
        held = Slices(config, world.rank, partitioned)
        held.changes = changes(world.rank)
        ReplicaCheck(config, world, partitioned).after_step(step, held)
        return held.read

    return crowd(config.parallel.devices).run(work)


def one_bit(array):
    """The last bit of the last element flipped."""
    array = array.copy()
    array.reshape(-1).view(np.uint32)[-1] ^= 1
    return array


def test_copies_that_are_equal_pass_and_slices_of_one_rank_are_not_read(crowd, config, caplog):
    caplog.set_level("INFO")
    read = compared(crowd, config())
    assert read[0] == read[3] and read[4] == read[7] and not set(read[0]) & set(read[4])
    assert "word_embedding.table" in read[0] and "adam_v.final_norm.gamma" in read[4]
    assert "step 1: copies on several ranks are equal" in caplog.text
    sharded = compared(crowd, config(**PLAN, optimizer_parallel="level1", optimizer_threshold=0))
    # the optimizer's sharding leaves the table whole, which two stages hold
    assert sharded[0] == [moment + "word_embedding.table" for moment in ("", "adam_m.", "adam_v.")]
    assert sharded[4] == []


@pytest.mark.parametrize(
    ("rank", "name", "against"),
    [
        (1, "blocks.0.attention_norm.gamma", 0),  # a tensor parallel copy
        (3, "adam_m.blocks.0.attention.query.weight", 1),  # a data parallel copy of a slice
        (6, "adam_v.query_layer.feed_forward.down.bias", 4),  # on the last stage
        (2, "word_embedding.table", 0),
    ],
)
def test_a_copy_that_differs_by_one_bit_is_named(crowd, config, rank, name, against):
    said = rf"^step 1: {name}: rank {rank} no longer holds the same bits as rank {against}, .*not saved"
    with pytest.raises(ReplicasDifferError, match=said):
        compared(crowd, config(), lambda each: {name: one_bit} if each == rank else {})


def test_all_ranks_stop_by_the_same_sentence(crowd, config):
    names = ("blocks.0.attention_norm.gamma", "blocks.0.attention_norm.beta")

    def work(world):
        held = Slices(config(), world.rank)
        held.changes = dict.fromkeys(names, one_bit) if world.rank == 2 else {}
        try:
            ReplicaCheck(config(), world, True).after_step(1, held)
        except TrainingHaltedError as error:
            return str(error)

    said = crowd(8).run(work)
    assert len(set(said)) == 1 and "(2 tensors of this stage in all): rank 2 no longer" in said[0]


def test_data_parallel_ranks_hold_copies_of_everything(crowd, config):
    plan = config(dp=3)
    read = compared(crowd, plan, partitioned=False)
    assert len(read[0]) == 3 * len(parameter_shapes(plan.model))
    with pytest.raises(ReplicasDifferError, match="blocks.1.attention.key.bias: rank 2 no longer .* rank 0"):
        changes = {"blocks.1.attention.key.bias": one_bit}
        compared(crowd, plan, lambda rank: changes if rank == 2 else {}, partitioned=False)


def test_when_it_compares(crowd, config):
    config = config(dp=2)
    config = replace(config, run=replace(config.run, check_replicas_every=4, steps=10))

    def work(world):
        check, seen = ReplicaCheck(config, world, False), []
        for step in range(1, 11):
            held = Slices(config, world.rank, False)
            check.after_step(step, held, applied=step > 2)  # the first update is that of step 3
            seen += [step] if held.read else []
        return seen

    assert crowd(2).run(work) == [[3, 4, 8, 10]] * 2
    config = replace(config, run=replace(config.run, check_replicas_every=0))
    assert crowd(2).run(work) == [[], []]


def test_ranks_without_copies_tell_each_other_nothing(crowd, config):
    assert compared(crowd, config(pp=2, micro_batches=2)) == [[], []]


def test_holders_are_the_ranks_of_one_slice(config):
    plan = config().parallel
    placed = layouts(config().model, plan)
    assert holders(placed["final_norm.gamma"], plan, 1) == [(4, 5, 6, 7)]
    assert holders(placed["blocks.0.attention.query.weight"], plan, 0) == [(0, 2), (1, 3)]
    first, last = copied_tensors(placed, plan)
    assert len(first) + len(last) == 3 * len(placed)


@pytest.mark.parametrize(
    ("model", "plan", "names"),
    [
        ("200b", {"dp": 16, "tp": 8, "pp": 16, "micro_batches": 16, "optimizer_parallel": "level1"}, 300),
        ("13b", {"dp": 2048}, 2000),  # one stage, and copies of all
    ],
)
def test_it_is_ready_in_a_moment_on_2048_ranks(model, plan, names):
    config = build_train_config(
        {
            "model": model,
            "data": {"train": {"one": {"records": "x"}}},
            "run": {"output": "x", "steps": 1},
            "parallel": plan,
        }
    )

    class Many:
        rank, size = 2047, 2048

    began = time.perf_counter()
    check = ReplicaCheck(config, Many(), True)
    assert time.perf_counter() - began < 5.0
    assert 0 < check._width < names
