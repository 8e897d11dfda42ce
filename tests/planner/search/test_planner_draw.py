"""Pictures of plans: what they show is what the cost model says; and the growth benchmark."""

from __future__ import annotations

import dataclasses
import json
import runpy
import sys
from pathlib import Path

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.planner.cost.cost import CostModel
from pangu_alpha.planner.cost.hardware import load_cluster, load_stack
from pangu_alpha.planner.cost.schedule import simulate
from pangu_alpha.planner.search import draw
from pangu_alpha.planner.search.search import Question, judge, search

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "planner_growth.py"
QUESTION = Question(ModelConfig(4096, 1024, 8, 16), load_cluster("910b-16"), load_stack("mindspore"), 64)


def candidate(**plan):
    """The cost of a plan, and its timeline."""
    found = judge(QUESTION, ParallelPlan(**plan))
    estimate = CostModel(QUESTION.cluster, QUESTION.software).estimate(found.job)
    return found, draw._Timeline(found.job, estimate)


def texts(figure):
    """All texts of a picture."""
    from matplotlib.text import Text

    return [each.get_text() for each in figure.findobj(Text) if each.get_text()]


@pytest.fixture
def figures(monkeypatch):
    """The pictures that are saved, kept open."""
    from matplotlib import pyplot

    kept = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    yield kept
    monkeypatch.undo()
    for figure in kept:
        pyplot.close(figure)


def test_a_short_timeline_shows_every_pass():
    _, timeline = candidate(dp=4, tp=1, pp=4, micro_batches=4)
    estimate = timeline.estimate
    assert timeline.events == simulate(estimate.forward, estimate.backward, 4)
    assert len(timeline.events) == 2 * 4 * 4
    assert timeline.later == pytest.approx(0, abs=1e-12)
    begin, end = timeline.cut
    assert begin == end and timeline.place(1.5) == 1.5
    event = timeline.events[7]
    assert timeline.shown(event) == [(event.start, event.end, event.micro)]


def test_a_long_timeline_keeps_beginning_and_end():
    found, timeline = candidate(dp=1, tp=4, pp=4, micro_batches=64)
    assert len(timeline.events) == 2 * 4 * 16  # four micro-batches a stage are simulated
    begin, end = timeline.cut
    assert 0 < begin < end < timeline.estimate.pipeline
    parts = [part for event in timeline.events for part in timeline.shown(event)]
    assert min(start for start, *_ in parts) == 0
    assert max(end for _, end, _ in parts) == pytest.approx(timeline.place(timeline.estimate.pipeline))
    assert {0, 63} <= {number for *_, number in parts} <= set(range(64))
    assert timeline.place(timeline.estimate.step) < found.seconds
    assert not any(begin < start < begin + timeline.gap - 1e-9 for start, *_ in parts)


def test_the_end_of_a_long_timeline_is_that_of_the_whole_schedule():
    _, timeline = candidate(dp=1, tp=4, pp=4, micro_batches=64)
    _, end = timeline.cut
    whole = simulate(timeline.estimate.forward, timeline.estimate.backward, 64)
    late = lambda event: event.start > end + timeline.slowest  # noqa: E731
    wanted = [(timeline.place(each.start), each.micro) for each in whole if late(each)]
    shown = [(start, number) for each in timeline.events for start, _, number in timeline.shown(each)]
    assert len(wanted) > 20
    for start, number in wanted:
        nearest = min(abs(start - other) for other, same in shown if same == number)
        assert nearest < 0.02 * timeline.slowest, (start, number)


def test_the_timeline_names_the_plan_and_its_parts(figures, tmp_path):
    found, timeline = candidate(dp=4, tp=1, pp=4, micro_batches=8, recompute="full")
    draw.draw_timeline(found, QUESTION, tmp_path / "timeline.png")
    said = texts(figures[0])
    share = timeline.estimate.bubble / found.seconds
    assert any("dp 4 × tp 1 × pp 4, 8 micro-batches" in text and f"{share:.1%}" in text for text in said)
    assert {"forward", "recompute and backward", "idle", "stage"} <= set(said)
    assert {"0", "1", "2", "3", "7"} <= set(said)  # stages and micro-batches
    assert any(text.startswith("data parallel, ") for text in said)


@pytest.mark.parametrize("degrees", [{"dp": 16}, {"pp": 8, "dp": 2}, {"pp": 4, "tp": 4, "layers": True}])
def test_timelines_of_all_shapes_are_drawn(degrees, tmp_path):
    degrees = dict(degrees)
    if degrees.pop("layers", False):
        degrees["layers_per_stage"] = (3, 2, 2, 1)
    for count in (8, 32):
        micro = {"micro_batches": min(count, 64 // degrees.get("dp", 1))}
        draw.draw_timeline(candidate(**degrees, **micro)[0], QUESTION, tmp_path / "timeline.png")
        assert (tmp_path / "timeline.png").read_bytes()[:4] == b"\x89PNG"


def test_breakdown_bars_add_up_to_the_step(figures, tmp_path):
    best = search(QUESTION, top=3).best
    draw.draw_breakdown(best, QUESTION, tmp_path / "parts.png")
    bars = figures[0].axes[0].patches
    for number, each in enumerate(best):
        width = sum(bar.get_width() for bar in bars if abs(bar.get_y() + 0.25 - number) < 0.01)
        assert width == pytest.approx(each.seconds, rel=0.01)
        assert any(f"{each.seconds:#.4g} s" in text for text in texts(figures[0]))
    assert sum("+" in text for text in texts(figures[0])) >= 1  # why the others lose


def test_front_has_a_step_and_a_label_for_every_plan(figures, tmp_path):
    small, _ = candidate(dp=1, tp=4, pp=4, micro_batches=64)
    large = search(QUESTION, top=1).best[0]
    front = (small, dataclasses.replace(large, memory=2 * small.memory))
    draw.draw_front(front, QUESTION, tmp_path / "front.png")
    axes = figures[0].axes[0]
    points = next(line for line in axes.lines if line.get_linestyle() == "None")
    assert list(points.get_ydata()) == [each.seconds for each in front]
    assert list(points.get_xdata()) == [each.memory / 2**30 for each in front]
    steps = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
    assert steps.get_xdata()[-1] == QUESTION.limit / 2**30
    assert "1 × 4 × 4, 64 × 1" in texts(figures[0])


def test_growth_benchmark_measures_and_draws(monkeypatch, capsys, tmp_path):
    picture = tmp_path / "growth.png"
    monkeypatch.setattr(sys, "argv", [str(BENCHMARK), "--quick", "--picture", str(picture)])
    runpy.run_path(str(BENCHMARK), run_name="__main__")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    points = [line for line in lines if "value" in line]
    assert [(line["curve"], line["value"]) for line in points] == [
        ("devices", 8), ("devices", 16), ("layers", 12), ("layers", 16)
    ]  # fmt: skip
    assert all(line["cpu"] > 0 and line["step"] > 0 and line["searched"] > 0 for line in points)
    assert [line["points"] for line in lines if "slope" in line] == [2, 2]
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_growth_slope_is_the_power():
    slope = runpy.run_path(str(BENCHMARK))["slope"]
    points = [{"value": value, "cpu": 0.25 * value**1.5} for value in (8, 64, 100)]
    assert slope(points) == pytest.approx(1.5)
