"""The dry run of a rank: what it refuses and what it reports."""

from __future__ import annotations

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import ConfigError
from pangu_alpha.proof.dry_run import compile as dry_run
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import DryRunError, Job, read_report
from pangu_alpha.proof.dry_run.stub_calls import KNOWN
from pangu_alpha.proof.graph.mindir import read, summary

MODEL = ModelConfig(192, 32, 2, 4, seq_length=16, dropout=0.0)


def test_a_job_refuses_a_plan_that_does_not_fit_the_model():
    with pytest.raises(ConfigError, match="tp: 8 does not divide the model's 4 heads"):
        Job(MODEL, ParallelPlan(tp=8))


def test_a_plan_that_mindspore_refuses_ends_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run, "dry_run_environment", _environment(dry_run.dry_run_environment))
    job = Job(MODEL, ParallelPlan(dp=2, tp=2))
    with pytest.raises(DryRunError, match="rank 0: the compilation ended with code 1: .*log.txt"):
        compile_rank(job, 0, tmp_path)
    assert not (tmp_path / "rank_00000" / dry_run.REPORT).exists()


def _environment(true_environment):
    """An environment that has fewer ranks than the plan."""
    return lambda rank, world: true_environment(rank, world // 2)


def test_a_child_that_takes_too_long_is_ended(tmp_path):
    with pytest.raises(DryRunError, match="rank 0: not compiled within 0 s"):
        compile_rank(Job(MODEL, ParallelPlan(dp=2)), 0, tmp_path, timeout=0.1)


def test_a_report_holds_graph_layouts_and_strategies(tmp_path):
    found = compile_rank(Job(MODEL, ParallelPlan(dp=2, tp=2), batch_size=1), 3, tmp_path)
    assert read_report(found.folder) == found
    assert (found.rank, found.folder.name) == (3, "rank_00003")
    assert found.seconds > 0
    assert found.peak_mb > 100
    assert set(found.stub_calls) == set(KNOWN) and min(found.stub_calls.values()) > 0
    slice_ = found.layouts["blocks.0.feed_forward.up.weight"]
    assert (slice_.shape, slice_.slice_shape) == ((128, 32), (64, 32))
    scope = next(scope for scope in found.strategies if "up-Linear/affine-Affine/MatMul" in scope)
    assert found.strategies[scope] == [[2, 1], [2, 1]]
    assert summary(read(found.graph)).parameters["blocks.0.feed_forward.up.weight"].shape == (64, 32)
