"""Where the ranks of a run begin: the same place for all, and an error rather than random weights."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pangu_alpha.checkpoint.native.distributed import LocalParts, SharedParts, part_name
from pangu_alpha.checkpoint.native.format import Manifest, write_checkpoint
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.tensors import Source
from pangu_alpha.config.run import build_train_config
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.training.checkpoints import (
    RunCheckpoints,
    Start,
    check_fits,
    check_same_place,
    data_position,
    restore_guard,
)
from pangu_alpha.training.guard import make_guard

RANKS = 4


@pytest.fixture
def config(settings):
    """A run whose four ranks each hold a quarter."""

    def make(storage="shared", **run):
        run = settings["run"] | run | {"checkpoint": {"storage": storage}}
        return build_train_config(settings | {"run": run, "parallel": {"dp": 2, "tp": 2}})

    return make


def save(config, group, step, attempt=None):
    """A rank's part: its rows of one parameter and one moment."""
    checkpoints = RunCheckpoints(config, group, partitioned=True)
    rows = np.full((2, 3), group.rank, np.float32)
    place = {"start": [2 * group.rank, 0], "shape": [2 * RANKS, 3]}
    slices = {"model": {"w": place}, "optimizer": {"adam_m.w": place}}
    manifest = Manifest(step, samples=8 * step, config=to_mapping(config), slices=slices)
    series = dataclasses.replace(checkpoints.series, attempt=attempt) if attempt else checkpoints.series
    return series.save({"model": {"w": rows}, "optimizer": {"adam_m.w": rows}}, manifest)


@pytest.fixture
def ranks(crowd):
    """Four of them."""
    return crowd(RANKS)


def find(ranks, config):
    """Where each rank begins."""
    return ranks.run(lambda group: RunCheckpoints(config, group, partitioned=True).find())


def test_all_ranks_begin_at_the_newest_whole_step(ranks, config, tmp_path):
    run = config()
    assert find(ranks, run) == [None] * RANKS
    for step in (1, 2):
        ranks.run(lambda group, step=step: save(run, group, step))
    (tmp_path / "run" / "checkpoints" / "step_00000002" / part_name(2) / "COMPLETE").unlink()
    for start in find(ranks, run):
        assert start.source.path.name == "step_00000001" and start.source.manifest.samples == 8
        assert start.resumed and start.verified and set(start.source.tensors) == {"model", "optimizer"}
    with pytest.raises(CheckpointError, match="rank_00002.*unfinished"):
        find(ranks, config(resume=str(tmp_path / "run" / "checkpoints" / "step_00000002")))


def test_ranks_of_a_node_local_run_begin_at_their_own_parts(ranks, config, tmp_path):
    run = config("local")
    for step in (1, 2):
        ranks.run(lambda group, step=step: save(run, group, step))
    ranks.run(lambda group: group.rank == 1 and save(run, Lonely(group), 2, attempt="another"))
    for folder in (None, tmp_path / "run" / "checkpoints" / "step_00000001"):
        starts = find(ranks, config("local", resume=str(folder or "auto")))
        for rank, start in enumerate(starts):
            assert start.source.path.parts[-2:] == ("step_00000001", part_name(rank))
            assert start.source.tensors["model"]["w"].pieces[0].box.start == (2 * rank, 0)
    with pytest.raises(CheckpointError, match="not of one start of the job"):
        find(ranks, config("local", resume=str(tmp_path / "run" / "checkpoints" / "step_00000002")))
    with pytest.raises(CheckpointError, match="a part of the plan .* but the run's is"):
        find(ranks, dataclasses.replace(run, parallel=dataclasses.replace(run.parallel, micro_batches=2)))


class Lonely:
    """A rank that needs no others."""

    def __init__(self, group):
        self.rank, self.size = group.rank, group.size

    def gather(self, array):
        return np.stack([array] * self.size)


def test_series_by_run(ranks, config, settings):
    kinds = {("shared", True): SharedParts, ("local", True): LocalParts}
    for (storage, partitioned), kind in kinds.items():
        run = config(storage)
        for each in ranks.run(lambda group: RunCheckpoints(run, group, partitioned)):  # noqa: B023
            assert type(each.series) is kind and each.saves
    whole = ranks.run(lambda group: RunCheckpoints(config(), group, partitioned=False))
    assert [each.saves for each in whole] == [True, False, False, False]


def test_a_new_run_from_weights_gives_way_to_its_own_checkpoints(ranks, config, tmp_path):
    weights = {"model": {"w": np.zeros((8, 3), np.float32)}}
    write_checkpoint(tmp_path / "weights", weights, Manifest(7, 56, config={}, kind="weights"))
    run = config(initial=str(tmp_path / "weights"))
    assert all(not start.resumed and start.source.manifest.step == 7 for start in find(ranks, run))
    ranks.run(lambda group: save(run, group, 1))
    assert all(start.resumed and start.source.manifest.step == 1 for start in find(ranks, run))
    with pytest.raises(CheckpointError, match="no such file or folder"):
        find(ranks, config(initial=str(tmp_path / "nowhere"), output=str(tmp_path / "other")))


def test_what_does_not_fit_is_refused(config, caplog):
    run = config()
    start = Manifest(1, 8, config={"model": to_mapping(run.model)}, tokenizer="ab")
    check_fits(Source("there", "ours", start, {}), run.model, "ab")
    with pytest.raises(ValueError, match="trained with the tokenizer ab, the records are of cd"):
        check_fits(Source("there", "ours", start, {}), run.model, "cd")
    check_fits(Source("there", "theirs", dataclasses.replace(start, tokenizer=None), {}), run.model, "cd")
    assert "does not say its vocabulary" in caplog.text
    other = {"model": to_mapping(run.model) | {"norm_order": "query_then_norm", "num_layers": 7}}
    with pytest.raises(
        ValueError,
        match="^there: model.num_layers is 7 there, 3 in this run: .*; model.norm_order is 'query_then_norm' "
        "there, 'norm_then_query' in this run: .*; set model.num_layers=7 model.norm_order=query_then_norm$",
    ):
        check_fits(Source("there", "ours", dataclasses.replace(start, config=other), {}), run.model, "ab")


def test_a_place_that_cannot_be_is_refused():
    assert data_position(Source("there", "theirs", Manifest(1, 2**63 - 1, config={}), {})) is None
    for values in ({"samples": 2**63}, {"samples": -1}, {"step": 2**63}):
        manifest = Manifest(**{"step": 1, "samples": 8} | values, config={})
        (name, value), *_ = values.items()
        with pytest.raises(CheckpointError, match=f"there: {name} is {value}, which is no place in a run"):
            data_position(Source("there", "ours", manifest, {}))
    state = {"mixture": {"since": 8, "sources": []}}
    with pytest.raises(
        CheckpointError, match="there: what it says of its data does not add up.*state.mixture"
    ):
        data_position(Source("there", "ours", Manifest(1, 8, config={}, state=state), {}))


def test_loss_scale_and_counters_come_back_or_are_refused(config, caplog):
    run = config()
    before, guard = (make_guard(run.run.guard, run.optim.loss_scale, "float16") for _ in range(2))
    before.observe(1.0, True)
    before.observe(float("inf"), False)
    manifest = Manifest(2, 8, config={}, state={"guard": before.state()})
    restore_guard(guard, Source("there", "ours", manifest, {}))
    assert guard.state() == before.state() and guard.skipped == 1
    restore_guard(guard, Source("there", "theirs", Manifest(2, 8, config={}), {}))
    assert "says nothing of loss scale and skipped updates" in caplog.text
    with pytest.raises(
        CheckpointError, match="state.guard: 1 updates applied and 1 skipped in 1 steps; resume"
    ):
        restore_guard(guard, Source("there", "ours", dataclasses.replace(manifest, step=1), {}))
    damaged = dataclasses.replace(manifest, state={"guard": {"scale": None}})
    with pytest.raises(
        CheckpointError, match="state.guard: not the state of a guard: {'scale': None}; resume"
    ):
        restore_guard(guard, Source("there", "ours", damaged, {}))


def start_at(step, resumed=False):
    """What a rank begins from, as far as its place matters."""
    manifest = SimpleNamespace(step=step, samples=8 * step)
    source = SimpleNamespace(manifest=manifest, path=Path(f"/node/step_{step:08d}"))
    return Start(source, resumed, verified=True)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (lambda rank: (10, 80, 7, start_at(10, True)), None),
        (lambda rank: (0, 0, 7, None), None),
        (
            lambda rank: (20, 160, 7, start_at(20, True)) if rank == 3 else (10, 80, 7, start_at(10, True)),
            r"^run.output: runs/one: the ranks resume from different checkpoints \(ranks 0-2 at step 10, "
            "rank 3 at step 20; this one from /node/step_000000",
        ),
        (
            lambda rank: (0, 0, 7, start_at(30 if rank < 2 else 40)),
            "^run.initial: ranks 2-3 would begin with the weights of another step than rank 0 .*copy one",
        ),
        (
            lambda rank: (0, 0, 7 if rank != 1 else 8, None),
            "^data: rank 1 would read other records",
        ),
    ],
)
def test_ranks_that_begin_elsewhere_are_named(crowd, place, said):
    def meet(world):
        step, samples, data, start = place(world.rank)
        try:
            return check_same_place(world, Path("runs/one"), step, samples, data, start)
        except ValueError as error:
            return str(error)

    found = crowd(4).run(meet)
    if said is None:
        assert found == [None] * 4
    else:
        assert all(re.search(said, each) for each in found)
