"""What a replay of training makes of the notes that ranks and the one process left; nothing is run."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import numpy as np
import pytest

from pangu_alpha.checkpoint.naming import MOMENTS
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.parallel.layout import layouts, slices_of_rank
from pangu_alpha.proof.replay.processes import ReplayError
from pangu_alpha.proof.replay.training import replay as module
from pangu_alpha.proof.replay.training.files import STEPS, state_file
from pangu_alpha.proof.replay.training.legs import Ended, Interruption, Trace, remove_earlier
from pangu_alpha.proof.replay.training.replay import Leg, replay_training
from pangu_alpha.proof.replay.training.small_run import small_run

TENSOR = ParallelPlan(tp=2)
KILLED = Leg(TENSOR, 2, 6, Interruption(1, signal.SIGKILL, 3))
STOPPED = Leg(TENSOR, 2, 6, Interruption(1, signal.SIGTERM, 3))
LAST = Leg(TENSOR, 2, 6)


@pytest.fixture
def replayed(tmp_path, monkeypatch):
    """Replays legs whose ranks leave what one process leaves, of given steps, with given exit codes.

    Each leg: (step that it begins with, from 0; step after the last one of each rank; exit codes).
    """
    config = small_run(tmp_path, every=2)
    shapes = parameter_shapes(config.model)
    placed = layouts(config.model, TENSOR)
    names = {prefix + name: name for name in shapes for prefix in ("", *MOMENTS)}

    def state(steps):
        random = np.random.default_rng(steps)
        size = {
            name: not own.endswith("key.bias") for name, own in names.items()
        }  # those stay where they are
        values = {name: random.normal(size=shapes[own]) for name, own in names.items()}
        return {name: (values[name] * size[name]).astype(np.float32) for name in names}

    def note(folder, first, last, cut, skipped):
        folder.mkdir(parents=True)
        for steps in range(first, last + 1):
            np.savez(state_file(folder, steps), **cut(state(steps), steps))
        lines = [
            {"step": n, "loss": 4.0, "norm": 1.0, "applied": n not in skipped, "scale": 1.0}
            for n in range(first, last)
        ]
        (folder / STEPS).write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    def call(legs, left, skipped=(), wrong=()):
        waiting = iter(left)

        def one(*_):
            note(tmp_path / "one", 0, 6, lambda whole, _: whole, skipped)
            return Trace.read(tmp_path / "one")

        def run_leg(_, __, folder, *___):
            first, ends, codes = next(waiting)
            for rank, end in enumerate(ends):
                places = slices_of_rank(placed, TENSOR, rank)

                def cut(whole, steps, places=places):
                    parts = {
                        name: tuple(slice(b, b + n) for b, n in zip(*places[own], strict=True))
                        for name, own in names.items()
                    }
                    scale = 1.0 + 1e-3 * (steps in wrong)
                    return {name: whole[name][part] * np.float32(scale) for name, part in parts.items()}

                note(folder / f"rank_{rank:05d}", first, end, cut, skipped)
            return Ended(codes, 1.0)

        monkeypatch.setattr(module, "prepare", lambda *_: tmp_path)
        monkeypatch.setattr(module, "_one", one)
        monkeypatch.setattr(module, "run_leg", run_leg)
        return replay_training(config, legs, tmp_path)

    return call


def test_a_killed_run_goes_on_from_its_last_checkpoint(replayed):
    report = replayed([KILLED, LAST], [(0, (3, 4), (None, -9)), (2, (6, 6), (0, 0))])
    assert report.passed and [(leg.first, leg.last) for leg in report.legs] == [(1, 3), (3, 6)]


def test_a_stopped_run_goes_on_where_it_stopped(replayed):
    report = replayed([STOPPED, LAST], [(0, (3, 3), (143, 143)), (3, (6, 6), (0, 0))])
    assert report.passed and [(leg.first, leg.last) for leg in report.legs] == [(1, 3), (4, 6)]


@pytest.mark.parametrize(
    ("legs", "left", "said"),
    [
        ([KILLED, LAST], [(0, (3, 3), (None, -9)), (0, (6, 6), (0, 0))], "began with step 1, 3 was expected"),
        ([STOPPED, LAST], [(0, (3, 3), (143, 143)), (2, (6, 6), (0, 0))], "with step 3, 4 was expected"),
        ([LAST], [(0, (5, 5), (0, 0))], "ended after step 5, 6 was expected"),
        ([STOPPED, LAST], [(0, (3, 4), (143, 143))], "did not end with the same step"),
        ([KILLED, LAST], [(0, (6, 6), (0, 0))], "rank 1 ended with 0 before it was killed"),
        ([STOPPED, LAST], [(0, (3, 3), (143, 0))], "rank 1 ended with 0, 143 was expected"),
    ],
    ids=["begun anew", "an older checkpoint", "too few steps", "apart", "not killed", "not stopped"],
)
def test_a_leg_that_is_not_the_one_that_was_asked_for_does_not_pass(replayed, legs, left, said):
    with pytest.raises(ReplayError, match=said):
        replayed(legs, left)


def test_gradients_are_those_of_the_first_update_of_a_leg(replayed):
    """In float16 a run begins with skipped steps, and one may come right after a resume."""
    left = [(0, (3, 3), (143, 143)), (3, (6, 6), (0, 0))]
    report = replayed([STOPPED, LAST], left, skipped=(0, 1, 3), wrong=(5,))
    assert report.difference("gradient").value == 0.0
    later = report.difference("later_gradient")
    assert later.where.startswith("step 5, ") and 5e-4 < later.value < 2e-3 and not later.passed


def test_a_leg_without_an_update_has_no_gradients_to_compare(replayed):
    report = replayed([LAST], [(0, (6, 6), (0, 0))], skipped=range(6))
    assert "gradient" not in {each.kind for each in report.differences} and report.passed


def test_a_folder_that_no_replay_has_made_is_left_alone(replayed, tmp_path):
    kept = tmp_path / "run" / "checkpoints" / "mine"
    kept.parent.mkdir(parents=True)
    kept.write_text("weights")
    with pytest.raises(ReplayError, match=r"run: not of an earlier replay .* give another --output"):
        replayed([LAST], [(0, (6, 6), (0, 0))])
    assert kept.read_text() == "weights"


def test_what_an_earlier_replay_has_left_is_removed(tmp_path):
    folder, mark = tmp_path / "run", tmp_path / "request.json"
    for folder_exists in (False, True, True):
        remove_earlier(folder, mark)
        assert not folder.exists()
        folder.mkdir()
        if folder_exists:
            mark.touch()
            (folder / "file").touch()


def test_graphs_are_used_again_until_the_job_or_this_project_changes(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(module, "compile_ranks", lambda job, folder, _: compiled.append(folder.name))
    for name, value in {"misplaced": (), "graphs_of": {}, "check_order": 1, "write_graphs": None}.items():
        monkeypatch.setattr(module, name, lambda *_, value=value: value)
    config = small_run(tmp_path)
    first, other = (replace(config, parallel=plan) for plan in (TENSOR, ParallelPlan(dp=2)))
    assert [module.prepare(each, tmp_path).name for each in (first, other, first)] == [
        "graphs_1",
        "graphs_2",
        "graphs_1",
    ]
    assert compiled == ["graphs_1", "graphs_2"]
    monkeypatch.setattr(module, "made_by", lambda: {"source": 1, "versions": "MindSpore 3"})
    assert module.prepare(first, tmp_path).name == "graphs_3"
    (tmp_path / "graphs_4").mkdir()  # of a replay that was ended while it compiled
    assert module.prepare(replace(config, parallel=ParallelPlan(tp=4)), tmp_path).name == "graphs_5"
