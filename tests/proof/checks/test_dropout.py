"""Dropout in the graphs of a plan: which ranks share masks, and whether the plan draws one device's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.cli.plan.text import dropout_text
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.data.hashing import device_seeds, head_numbers, salted
from pangu_alpha.proof.checks.dropout import Draw, cell_of, salt_of, shared
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import Job, read_report
from pangu_alpha.proof.dry_run.links import Cluster
from pangu_alpha.proof.dry_run.report import summarise
from pangu_alpha.proof.replay import replay as replaying
from pangu_alpha.proof.replay.replay import replay
from pangu_alpha.proof.replay.rows import keys_of_step, micro_batches
from pangu_alpha.proof.replay.suite import job
from pangu_alpha.training.schedule import dropout_rows

MODEL = ModelConfig(192, 32, 2, 4, seq_length=16, dropout=0.1)
PLAN = ParallelPlan(dp=2, tp=2, sequence_parallel=True)
CELLS = ["embedding_dropout"] + [
    f"{layer}.{cell}"
    for layer in ("blocks.0", "query_layer")
    for cell in ("attention.core.dropout", "attention_dropout", "feed_forward_dropout")
]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Gives the summaries of compiled ranks of a job with dropout."""

    def get(job_, *ranks):
        folder = tmp_path_factory.mktemp("dropout")
        cluster = Cluster.in_order(job_.plan.devices)
        return [summarise(job_, compile_rank(job_, rank, folder), cluster) for rank in ranks]

    return get


@pytest.fixture
def patched(monkeypatch):
    """Lets compiling children find controls.py; gives a job broken by a function of it."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    return lambda job_, control: replace(job_, patch=f"controls:{control}")


def by_rank(summaries):
    return {each.rank: each.dropout for each in summaries}


def test_masks_by_position_are_those_of_the_whole_tensor(compiled):
    first, last = summaries = compiled(Job(MODEL, PLAN, batch_size=2), 0, 3)
    assert [each.cell for each in first.dropout] == CELLS
    for summary, tensor in ((first, 0), (last, 1)):
        assert summary.agrees and summary.dropout_faults == ()
        embedding, weights, *_ = summary.dropout
        assert (embedding.shape, embedding.axes, embedding.passes) == ((16, 32), ("dp", "tp"), 5)
        assert (weights.shape, weights.axes, weights.passes) == ((2, 2, 16, 16), ("dp", "tp"), 4)
        assert weights.heads == tuple(salted(head_numbers(2, 2 * tensor), 1).tolist())
        assert (
            len({each.seeds for each in summary.dropout}) == 6
        )  # both attention cores have the columns' own
    assert shared(by_rank(summaries), PLAN) == []
    text = dropout_text(summaries)
    assert "blocks.*.attention.core.dropout" in text and "by position" in text and "wrong" not in text
    assert "rank 0 moves " in text and "the device's kernel in all of them would move " in text


def test_the_device_s_kernel_has_other_seeds_for_every_slice(compiled):
    job_ = Job(MODEL, replace(PLAN, sequence_parallel=False), attention_dropout="device")
    summaries = compiled(job_, 0, 1)
    for rank, summary in enumerate(summaries):
        assert summary.agrees
        ways = {each.cell: each.way for each in summary.dropout}
        assert {cell for cell in ways if ways[cell] == "device"} == {CELLS[1], CELLS[4]}
        weights = summary.dropout[1]
        assert weights.seeds == device_seeds((1, 0, rank), 1)
        assert weights.bytes == weights.kernel_bytes == 4 * 2 * 2 * 16 * 16 + 3 * 2 * 16 * 16 // 8
    assert shared(by_rank(summaries), job_.plan) == []


@pytest.mark.long  # shorter than that, `shared` is tested by hand below
def test_equal_seeds_on_ranks_with_other_slices_are_named(compiled, patched):
    job_ = Job(MODEL, replace(PLAN, sequence_parallel=False), attention_dropout="device")
    summaries = compiled(patched(job_, "seeds_of_the_cell_alone"), 0, 1)
    assert not any(each.agrees for each in summaries)
    for summary in summaries:
        assert [fault.split()[2] for fault in summary.dropout_faults] == [CELLS[1], CELLS[4]]
    said = [f"{cell}: ranks 0 and 1 hold different slices, but draw the same mask" for cell in CELLS[1::3]]
    assert shared(by_rank(summaries), job_.plan) == said
    assert said[0] in dropout_text(summaries, said)


@pytest.mark.long
def test_copies_drawn_apart_are_named_and_do_not_pass_a_replay(patched, tmp_path):
    broken = patched(job(ParallelPlan(tp=2), layers=1, dropout=0.3), "copies_drawn_apart")
    report = replay("copies drawn apart", broken, tmp_path)
    assert not report.passed
    assert report.difference("gradient").ratio > 10
    cluster = Cluster.in_order(2)
    ranks = [summarise(broken, read_report(tmp_path / f"rank_0000{rank}"), cluster) for rank in (0, 1)]
    assert ranks[0].dropout_faults == () and len(ranks[1].dropout_faults) == 4
    said = shared(by_rank(ranks), broken.plan)
    assert (
        "embedding_dropout: ranks 0 and 1 hold parts of one tensor, but number its masks differently" in said
    )
    assert len(said) == 3  # heads differ in any case


@pytest.mark.long
def test_masks_of_other_rows_do_not_pass(monkeypatch, tmp_path):
    """Data-parallel ranks that draw the same masks for different rows."""

    def same_for_all(job_, step):
        (keys,) = keys_of_step(job_, step)
        return (np.repeat(keys[:1], len(keys), 0),)

    monkeypatch.setattr(replaying, "keys_of_step", same_for_all)
    report = replay("masks shared", job(ParallelPlan(dp=2), layers=1, dropout=0.3), tmp_path)
    assert not report.passed
    assert report.difference("loss").ratio > 10 and report.difference("gradient").ratio > 10


def test_masks_of_the_device_s_kernel_are_not_replayed(tmp_path):
    drawn = replace(job(ParallelPlan(tp=2), dropout=0.1), attention_dropout="device")
    with pytest.raises(ValueError, match="replay: attention_dropout 'device'"):
        replay("drawn", drawn, tmp_path)
    assert not list(tmp_path.iterdir())


def test_one_device_reads_the_keys_of_all_ranks_in_the_order_of_the_rows():
    job_ = job(ParallelPlan(dp=2, micro_batches=3), dropout=0.1)
    (keys,) = keys_of_step(job_, 4)
    assert keys.shape == (2, 6, 8)
    read = np.concatenate([batch for (batch,) in micro_batches(job_, [keys])])
    assert np.array_equal(read, dropout_rows(1, 4, range(12), 8))
    assert keys_of_step(job(ParallelPlan(dp=2)), 4) == ()


def draw(cell="c", way="device", seeds=(1, 2), axes=("dp", "tp")):
    return Draw(cell, way, seeds, (), axes, (2, 2), 0, 0, 1)


@pytest.mark.parametrize(
    ("axes", "seeds", "said"),
    [
        (("dp",), [(1, 2), (1, 2), (3, 4), (3, 4)], []),
        (("dp", "tp"), [(1, 2), (1, 3), (1, 4), (1, 5)], []),
        (
            ("dp",),
            [(1, 2), (5, 2), (3, 4), (3, 4)],
            ["c: ranks 0 and 1 hold copies, but draw different masks"],
        ),
        (
            ("dp", "tp"),
            [(1, 2), (3, 4), (1, 2), (5, 6)],
            ["c: ranks 0 and 2 hold different slices, but draw the same mask"],
        ),
    ],
)
def test_equal_seeds_if_and_only_if_the_same_slice(axes, seeds, said):
    found = {rank: [draw(seeds=pair, axes=axes)] for rank, pair in enumerate(seeds)}
    assert shared(found, ParallelPlan(dp=2, tp=2)) == said
    other_stage = found | {4: [draw(seeds=seeds[0], axes=axes)]}
    assert shared(other_stage, ParallelPlan(dp=2, tp=2, pp=2, micro_batches=2)) == said


def test_a_mask_that_only_one_rank_draws_is_named():
    assert shared({0: [draw()], 1: []}, ParallelPlan(tp=2)) == ["c: rank 0 draws a mask, rank 1 does not"]
    assert shared({0: [], 1: [draw()]}, ParallelPlan(tp=2)) == ["c: rank 1 draws a mask, rank 0 does not"]


def test_cells_by_scope():
    scope = "Default/network-L/token_loss-T/model-P/blocks-CellList/0-Block/attention_dropout-Dropout/Mul-op1"
    assert cell_of(scope) == cell_of(f"recompute_{scope}") == "blocks.0.attention_dropout"
    assert cell_of(scope.replace("/Mul", "/Grad_Mul/Mul")) == cell_of(f"Gradients/{scope}") == ""
    assert cell_of(scope.replace("attention_dropout-Dropout", "add-Add")) == ""
    assert [salt_of(cell, MODEL) for cell in CELLS] == list(range(7))
