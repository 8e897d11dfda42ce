"""Found tables of small blocks compute what one device computes, and send other things than the usual one."""

from __future__ import annotations

from collections import Counter

import pytest

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.planner.operators.found_table import found_table
from pangu_alpha.planner.operators.strategies import best_block
from pangu_alpha.proof.dry_run.job import read_report
from pangu_alpha.proof.graph import mindir
from pangu_alpha.proof.replay.continued import replay_change
from pangu_alpha.proof.replay.replay import Setting, compile_ranks, replay
from pangu_alpha.proof.replay.suite import Change, job

pytestmark = pytest.mark.long


def with_table(devices, batch, layers=2, dropout=0.0, **plan):
    """A small job split as is found for a micro-batch of so many sequences."""
    shape = job(ParallelPlan()).model
    table = found_table(best_block(shape, devices, batch), shape, "tiny")
    return job(ParallelPlan(tp=devices, table=table, **plan), layers, dropout=dropout)


def calls(folder):
    """Collectives of rank 0's graph: operation, devices that take part, to how many."""
    graph = mindir.read(read_report(folder / "rank_00000").graph)
    found = Counter()
    for each in mindir.collectives(graph):
        found[each.operation, len(each.ranks)] += each.calls
    return found


def test_a_found_table_computes_what_one_device_computes(tmp_path):
    found = with_table(4, 2)
    reports = compile_ranks(found, tmp_path / "found")
    report = replay("found", found, tmp_path / "found", Setting(), compiled=reports)
    assert report.passed, report.table()
    assert min(report.losses) > 1.0
    compile_ranks(job(ParallelPlan(tp=4)), tmp_path / "hand-made")
    sent, usual = calls(tmp_path / "found"), calls(tmp_path / "hand-made")
    assert sent["ReduceScatter", 2] > 0 and sent["AllGather", 2] > 0  # the output product is split 2 x 2
    assert {kind for kind in usual if kind[0] != "AllReduce"} == set()
    assert sent["AllReduce", 4] < usual["AllReduce", 4] + 22  # gradients of norms and biases, no products


@pytest.mark.parametrize(
    "case",
    [
        {"devices": 4, "batch": 8},  # attention by rows and heads, feed-forward by columns alone
        {"devices": 2, "batch": 2, "dp": 2, "optimizer_parallel": "level1", "optimizer_threshold": 0},
        {"devices": 2, "batch": 2, "pp": 2, "micro_batches": 2},
        {"devices": 2, "batch": 1, "dp": 2, "micro_batches": 2, "recompute": "full", "dropout": 0.1},
    ],
    ids=str,
)
def test_found_tables_with_other_axes_compute_it_too(case, tmp_path):
    report = replay("found", with_table(**case), tmp_path, Setting())
    assert report.passed, report.table()


def test_training_goes_on_under_a_found_table_and_back(tmp_path):
    hand_made, found = job(ParallelPlan(tp=2)), with_table(4, 2)
    for name, change in {"to": Change(hand_made, found), "back": Change(found, hand_made)}.items():
        before, after = replay_change(name, change, tmp_path / name, 2)
        assert before.passed, before.table()
        assert after.passed, after.table()
