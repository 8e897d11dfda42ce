"""The stages that are found against all layers and recompute there are, and the bounds that are stated."""

from __future__ import annotations

import dataclasses
import itertools
from functools import cache

import numpy as np
import pytest

from pangu_alpha.planner.cost.cost import CostModel
from pangu_alpha.planner.cost.hardware import load_cluster, load_stack
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.cost.memory import memory
from pangu_alpha.planner.cost.shapes import Shape
from pangu_alpha.planner.search.stages import _CLOSE, Pipeline

CLUSTER = load_cluster("910a-64")
LEVELS = ("none", "level1", "level2", "level3")
MODES = ("none", "selective", "full")
INSTANCES = [(2, 5, 7), (3, 3, 5), (4, 9, 5)]  # stages, micro-batches, layers


def software(stack):
    """A stack, its attention fused where it leaves that open."""
    found = load_stack(stack)
    return found if found.fused_attention is not None else dataclasses.replace(found, fused_attention=True)


def model(stack):
    return CostModel(CLUSTER, software(stack))


def job(pp, micro_batches, layers, **changes):
    shape = Shape.gpt(layers, 1024, 16, 30000, 512)
    return Job(shape, 4, 2, 2, pp, micro_batches, **changes)


def splits(layers, pp):
    for ends in itertools.combinations(range(1, layers), pp - 1):
        yield tuple(b - a for a, b in itertools.pairwise((0, *ends, layers)))


def mixes(layers, stack):
    """Words of a stage's layers; without kept scores, selective recompute saves nothing."""
    modes = ("none", "full") if software(stack).fused_attention else MODES
    return list(itertools.combinations_with_replacement(modes, layers))


def costed(job, costs):
    return costs.estimate(job).step, max(part.total for part in memory(job, CLUSTER.device, costs.stack))


@cache
def everything(pp, micro_batches, layers, stack):
    """Seconds and bytes of every choice of layers and recompute."""
    costs, asked, found = model(stack), job(pp, micro_batches, layers), []
    for split in splits(layers, pp):
        for words in itertools.product(*(mixes(count, stack) for count in split)):
            recompute = tuple(itertools.chain(*words))
            one = dataclasses.replace(asked, stage_layers=split, recompute=recompute)
            found.append(costed(one, costs))
    return np.array(found)


def limits(pp, micro_batches, layers, stack):
    """Bytes into which everything fits, most, a few, hardly anything, nothing."""
    bytes_of_all = everything(pp, micro_batches, layers, stack)[:, 1]
    shares = [int(np.quantile(bytes_of_all, share)) for share in (1.0, 0.6, 0.2, 0.02, 0.0)]
    return [*shares, shares[-1] - 1]


def as_job(asked, stages):
    words = tuple(mode for counts in stages.counts for mode, count in counts.items() for _ in range(count))
    return dataclasses.replace(asked, stage_layers=stages.layers, recompute=words)


@pytest.mark.parametrize("stack", ["pangu-alpha", "mindspore-unfused"])
@pytest.mark.parametrize(("pp", "micro_batches", "layers"), INSTANCES)
def test_the_best_of_all_is_found(pp, micro_batches, layers, stack):
    instance = (pp, micro_batches, layers, stack)
    asked = job(pp, micro_batches, layers)
    for limit in limits(*instance):
        seconds, sizes = everything(*instance).T
        fitting = seconds[sizes <= limit]
        stages = Pipeline(model(stack), asked, limit, MODES).best()
        if not len(fitting):
            assert stages is None
            continue
        assert stages.least <= fitting.min() * (1 + 1e-9)
        assert stages.least <= stages.seconds
        assert fitting.min() * (1 - 1e-9) <= stages.seconds <= fitting.min() * (1 + _CLOSE)
        own = costed(as_job(asked, stages), model(stack))
        assert own == pytest.approx((stages.seconds, stages.memory), rel=1e-9)
        assert stages.memory <= limit


@pytest.mark.parametrize("stack", ["mindspore", "megatron"])
def test_no_choice_undercuts_the_bound(stack):
    random, costs = np.random.default_rng(4), model(stack)
    for _ in range(60):
        pp, layers = int(random.integers(1, 5)), int(random.integers(5, 12))
        cuts = np.sort(random.choice(np.arange(1, layers), pp - 1, replace=False))
        split = tuple(int(count) for count in np.diff([0, *cuts, layers]))
        asked = job(pp, int(random.integers(pp, 4 * pp + 1)), layers, sharding=str(random.choice(LEVELS)))
        recompute = tuple(str(word) for word in random.choice(MODES, layers))
        one = dataclasses.replace(asked, stage_layers=split, recompute=recompute)
        assert Pipeline(costs, asked).least() <= costs.estimate(one).step * (1 + 1e-9)


def test_the_limit_is_kept_to_the_byte():
    asked, costs = job(3, 6, 9), model("mindspore")
    whole = Pipeline(costs, asked).best()
    assert Pipeline(costs, asked, whole.memory).best().counts == whole.counts
    less = Pipeline(costs, asked, whole.memory - 1).best()
    assert less.memory < whole.memory and less.seconds >= whole.seconds
    sizes = memory(as_job(asked, less), CLUSTER.device, costs.stack)
    assert max(part.total for part in sizes) == pytest.approx(less.memory, abs=8)


@pytest.mark.parametrize("mode", MODES)
def test_only_the_modes_that_are_given_are_used(mode):
    stages = Pipeline(model("mindspore-unfused"), job(3, 6, 9), modes=(mode,)).best()
    assert {key for counts in stages.counts for key in counts} == {mode}
    assert sum(stages.layers) == 9


def test_nothing_within_a_bound_that_is_too_low():
    pipeline = Pipeline(model("mindspore"), job(3, 6, 9))
    best = pipeline.best()
    assert pipeline.best(best.seconds * 1.001).seconds == best.seconds
    assert pipeline.best(pipeline.least() * 0.999) is None


def test_a_heavy_last_stage_gets_fewer_layers():
    shape = Shape.gpt(16, 1024, 16, 60_000, 512)  # logits that take as long as some layers
    pipeline = Pipeline(model("mindspore"), Job(shape, 4, pp=4, micro_batches=16))
    stages = pipeline.best()
    assert sum(stages.layers) == 16 and stages.layers[-1] == min(stages.layers) < max(stages.layers)
    assert pipeline.seconds((4, 4, 4, 4)) > 1.2 * stages.seconds
