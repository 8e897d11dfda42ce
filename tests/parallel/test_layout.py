"""Slices of every plan cover every parameter, and each is written by one rank."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.network.parameters import parameter_shapes, register_rows
from pangu_alpha.network.rows import Constant, Row, Stage
from pangu_alpha.parallel.layout import layouts, slice_writers, written_slices

MODEL = ModelConfig(vocab_size=61, hidden_size=24, num_layers=3, num_heads=12, seq_length=8)
PLANS = [
    ParallelPlan(),
    ParallelPlan(dp=3),
    ParallelPlan(dp=4, optimizer_parallel="level1", optimizer_threshold=0),
    ParallelPlan(dp=2, tp=3, optimizer_parallel="level2", optimizer_threshold=1),
    ParallelPlan(dp=2, tp=2, pp=3, micro_batches=3, optimizer_parallel="level1", optimizer_threshold=0),
    ParallelPlan(dp=2, tp=4, pp=2, micro_batches=2, layers_per_stage=(1, 2), vocab_parallel=False),
]


def test_shapes_are_the_models():
    for name in ("tiny", "2_6b", "13b", "200b"):
        model = load_model_config(name)
        shapes = parameter_shapes(model)
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == model.parameter_count


@pytest.mark.parametrize(
    "plan", PLANS, ids=lambda plan: f"{plan.dp}-{plan.tp}-{plan.pp}-{plan.optimizer_parallel}"
)
def test_slices_cover_each_parameter_once(plan):
    placed = layouts(MODEL, plan)
    writers = slice_writers(placed, plan)
    assert writers.keys() == placed.keys()
    for name, layout in placed.items():
        counts = np.zeros(layout.shape, int)
        for begin, rank in writers[name].items():
            assert layout.start(plan, rank) == begin  # the writer holds it
            counts[tuple(slice(a, a + n) for a, n in zip(begin, layout.slice_shape, strict=True))] += 1
        assert (counts == 1).all(), name
        holders = [rank for rank in range(plan.devices) if layout.start(plan, rank) is not None]
        assert len(holders) == plan.dp * plan.tp
    for rank in range(plan.devices):
        own = written_slices(placed, plan, rank)
        assert own == {n: b for n, found in writers.items() for b, writer in found.items() if writer == rank}


def test_ranks_that_hold_the_same_take_turns():
    plan = ParallelPlan(dp=4)
    writers = slice_writers(layouts(MODEL, plan), plan)
    counts = Counter(rank for found in writers.values() for rank in found.values())
    assert max(counts.values()) - min(counts.values()) <= 1 and len(counts) == 4


def test_slices_of_the_optimizer_go_along_the_ranks():
    """dp 2, tp 2: data parallel ranks share the rows of a slice; all ranks those of what tp leaves whole."""
    plan = ParallelPlan(dp=2, tp=2, optimizer_parallel="level1", optimizer_threshold=0)
    placed = layouts(MODEL, plan)
    up, down, gamma = (
        placed[f"blocks.0.{name}"]
        for name in ("feed_forward.up.weight", "feed_forward.down.weight", "attention_norm.gamma")
    )
    assert [up.start(plan, rank) for rank in range(4)] == [(0, 0), (48, 0), (24, 0), (72, 0)]
    assert [down.start(plan, rank) for rank in range(4)] == [(0, 0), (0, 48), (12, 0), (12, 48)]
    assert [gamma.start(plan, rank) for rank in range(4)] == [(0,), (6,), (12,), (18,)]


def test_the_largest_plan_is_described_quickly():
    model = load_model_config("200b")
    plan = ParallelPlan(dp=16, tp=8, pp=16, micro_batches=16, optimizer_parallel="level1")
    writers = slice_writers(layouts(model, plan), plan)
    assert len({rank for found in writers.values() for rank in found.values()}) == 2048
    assert writers.keys() == parameter_shapes(model).keys()


@dataclass(frozen=True)
class Cut:
    """A network whose parameters other axes cut than PanGu-alpha's."""

    size: int = 8


register_rows(
    Cut,
    [
        Row("experts", "E E", Constant(0.0), True, ("dp", "tp"), Stage.FIRST),
        Row("both", "E", Constant(0.0), True, ("dp+tp",), Stage.FIRST),
        Row("tensor_first", "E E", Constant(0.0), True, ("tp", "dp"), Stage.FIRST),
    ],
    {"E": "size"},
)


@pytest.mark.parametrize("sharded", [False, True])
def test_any_axis_of_the_grid_may_cut_a_parameter(sharded):
    more = {"optimizer_parallel": "level1", "optimizer_threshold": 0} if sharded else {}
    plan = ParallelPlan(dp=2, tp=4, **more)
    placed = layouts(Cut(), plan)
    assert {name: layout.slice_shape for name, layout in placed.items()} == {
        "experts": (4, 2),
        "both": (1,),
        "tensor_first": (2, 4),
    }
    assert [placed["experts"].start(plan, rank) for rank in (0, 1, 4, 7)] == [(0, 0), (0, 2), (4, 0), (4, 6)]
    assert [placed["both"].start(plan, rank) for rank in range(8)] == [(place,) for place in range(8)]
    assert placed["tensor_first"].start(plan, 5) == (2, 4)
    for name, writers in slice_writers(placed, plan).items():
        assert sorted(writers.values()) == list(range(8)), name  # no two ranks hold the same
        assert placed[name].share(plan) == 1.0
