"""What a run reports is JSON, survives a kill, and a full disk ends the run in words or not at all."""

from __future__ import annotations

import errno
import json
import logging
import math
import os

import pytest

from pangu_alpha.training.reporting import events, report
from pangu_alpha.training.reporting.report import Report, ReportError, draw_curve, metrics_line, read_metrics
from pangu_alpha.training.reporting.units import Units

TOKENS = Units("PanGu-α", "nats per token", "tokens", 16, 1e6)
ENTRY = {
    "loss": 1.5, "grad_norm": 2.0, "loss_scale": 1.0, "lr": 1e-3, "tokens_per_s": 10.0, "mfu": None,
    "applied": True, "skipped": 0,
}  # fmt: skip


def entry(step, **values):
    return {"step": step} | ENTRY | values


def report_of(folder, step=0, tensorboard=False):
    return Report(folder, step, steps=10, log_every=1, tensorboard=tensorboard, units=TOKENS)


def strict(path):
    """The lines of a file, by a reader that takes JSON alone."""

    def refuse(word):
        raise AssertionError(word)

    return [json.loads(line, parse_constant=refuse) for line in path.read_text("utf-8").split("\n")[:-1]]


def test_numbers_that_are_not_finite_are_null_and_named(tmp_path, capsys):
    written = report_of(tmp_path, tensorboard=True)
    written.step(entry(1, loss=math.nan, grad_norm=math.inf, applied=False, **{"loss/一": -math.inf}))
    written.step(entry(2))
    written.validation(
        {"step": 2, "validation_loss": math.nan, "validation_perplexity": 1.0, "validation_tokens": 3},
        "validation loss nan",
    )
    written.close()
    assert "loss nan  grad norm inf" in capsys.readouterr().out
    first, second, third = strict(tmp_path / "metrics.jsonl")
    assert [first[key] for key in ("loss", "grad_norm", "loss/一")] == [None, None, None]
    assert first["not_finite"] == ["loss", "grad_norm", "loss/一"] and third["not_finite"] == [
        "validation_loss"
    ]
    assert second == entry(2)
    assert read_metrics(tmp_path / "metrics.jsonl") == [first, second, third]
    assert (tmp_path / "loss.png").stat().st_size > 5_000 and [*(tmp_path / "events").iterdir()]


def test_files_of_older_versions_are_read_and_become_json_at_a_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    old = [entry(1, loss=math.nan, grad_norm=math.inf), entry(2), entry(3)]
    path.write_text("".join(json.dumps(each) + "\n" for each in old), "utf-8")
    assert math.isnan(read_metrics(path)[0]["loss"])
    report_of(tmp_path, step=2).close()
    first, second = strict(path)
    assert first == entry(1, loss=None, grad_norm=None, not_finite=["loss", "grad_norm"]) and second == entry(
        2
    )
    assert metrics_line(first) == path.read_text("utf-8").splitlines(keepends=True)[0]  # it stays so


def test_metrics_of_a_killed_run_are_rewound(tmp_path):
    lines = "".join(metrics_line({"step": step, "loss/一": 1.0}) for step in (1, 2, 3))
    cut = '{"step": 4, "loss/一'.encode()[:-1]  # in the middle of a character
    (tmp_path / "metrics.jsonl").write_bytes(lines.encode() + cut)
    report_of(tmp_path, step=3).close()
    assert [each["step"] for each in strict(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    report_of(tmp_path, step=2).close()
    assert [each["step"] for each in strict(tmp_path / "metrics.jsonl")] == [1, 2]
    assert sorted(os.listdir(tmp_path)) == ["loss.png", "metrics.jsonl"]


def test_a_whole_last_line_without_its_end_is_kept(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}', "utf-8")
    again = report_of(tmp_path, step=2)
    again.step(entry(3))
    again.close()
    assert [each["step"] for each in strict(tmp_path / "metrics.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize("damage", ['{"step": 2, "lo{"step": 2}', "\0" * 40, "[2]"])
def test_damage_in_the_middle_loses_no_line_behind_it(tmp_path, damage, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + damage + '\n{"note": "mine"}\n{"step": 3}\n{"step": 4}\n', "utf-8")
    content = path.read_bytes()
    for copy in ("metrics.jsonl.damaged", "metrics.jsonl.damaged-2"):
        report_of(tmp_path, step=3).close()
        assert strict(path) == [{"step": 1}, {"note": "mine"}, {"step": 3}]
        assert (tmp_path / copy).read_bytes() == content
        assert (
            f"1 lines are damaged, the first is line 2; they are left out, and the file as it was is {copy}"
            in (caplog.text)
        )
        path.write_bytes(content)


def test_a_full_disk_ends_the_run_in_words(tmp_path, monkeypatch):
    running = report_of(tmp_path)
    running.step(entry(1))

    def full(descriptor, data):
        os.write(descriptor, data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report, "write_all", full)
    with pytest.raises(
        ReportError, match="metrics.jsonl: not written: No space left on device; the run ends.*room"
    ):
        running.step(entry(2))
    monkeypatch.undo()
    running.close()
    report_of(tmp_path, step=1).close()
    assert strict(tmp_path / "metrics.jsonl") == [entry(1)]


def test_a_curve_that_cannot_be_drawn_is_no_failure(tmp_path, caplog, monkeypatch):
    (tmp_path / "loss.png").write_bytes(b"old")

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report, "write_bytes", full)
    report_of(tmp_path).close()
    assert "loss.png: not drawn: No space left on device" in caplog.text
    assert (tmp_path / "loss.png").read_bytes() == b"old"


def test_a_curve_leaves_out_what_is_not_finite(tmp_path):
    entries = [
        {"step": 1, "loss": None},
        {"step": 2, "loss": math.nan},
        {"step": 3, "validation_loss": None},
        {},
    ]
    assert [*report._points([*entries, {"step": 4, "loss": 2.0}], "loss")] == [(4, 2.0)]
    draw_curve(entries, tmp_path / "loss.png", TOKENS)
    assert (tmp_path / "loss.png").stat().st_size > 5_000


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_takes_tensorboard_away_and_nothing_else(tmp_path, monkeypatch, caplog):
    """Its thread ends; whoever went on adding would wait for ever."""
    caplog.set_level(logging.WARNING)
    written = events.Events(tmp_path / "events", 0)

    def full(event):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(written._writer.file_writer.event_writer._ev_writer, "write_event", full)
    written.add("train/loss", 1.0, 1)
    written._thread.join(60)
    for step in range(2, 3000):
        written.add("train/loss", 1.0, step)
    written.close()
    assert caplog.text.count("no more events for TensorBoard") == 1
