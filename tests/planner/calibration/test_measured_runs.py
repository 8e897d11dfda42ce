"""Logs of training runs as measurements, and the command that fits a cluster to them."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from pangu_alpha.cli.plan.calibrate import add_options, run
from pangu_alpha.config.schema import ConfigError
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.planner.calibration.measured_runs import as_rows, read_run
from pangu_alpha.planner.cost.cost import CostModel
from pangu_alpha.planner.cost.hardware import load_cluster, load_stack
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.cost.shapes import Shape
from pangu_alpha.planner.cost.software import software_of

CLUSTER = "910b-64"
PLANS = (({}, 4), ({"dp": 8}, 1), ({"dp": 2, "tp": 4}, 8), ({"tp": 8}, 4))
LAPTOP = """\
device: {peak: 2.0e11, memory: 16.0e9, usable: 0.9, bandwidth: 2.0e10}
levels: {host: {size: 0, bandwidth: 1.0e10, latency: 1.0e-5, inner: true}}
count: 1
"""


def folder(where: Path, plan: dict, batch: int = 4, device: str = "auto") -> Path:
    """A run's folder with its config alone."""
    where.mkdir(parents=True)
    run = {"output": str(where), "steps": 50, "batch_size": batch, "device": device}
    data = {"train": {"a": {"records": "records"}}}
    values = {"model": {"base": "2_6b", "dropout": 0.0}, "data": data, "run": run, "parallel": plan}
    (where / "config.yaml").write_text(yaml.safe_dump(values))
    return where


def log(where: Path, seconds, samples: int) -> Path:
    lines = []
    for step, taken in enumerate(seconds, start=1):
        entry = {"step": step, "samples": step * samples, "loss": 1.0, "tokens_per_s": samples * 1024 / taken}
        lines.append(json.dumps(entry))
    lines.insert(4, json.dumps({"step": 4, "validation_loss": 1.0}))
    path = where / "metrics.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def noisy(seconds: float) -> np.ndarray:
    """Steps of 1 % noise, with a compiling first one and a hiccup."""
    taken = seconds * (1 + 0.01 * np.random.default_rng(0).standard_normal(20))
    taken[0], taken[1], taken[12] = 50 * seconds, 2 * seconds, 3 * seconds
    return taken


@pytest.fixture
def logs(tmp_path):
    """Logs of four plans, as a cluster with slower products and links would write them."""
    cluster = load_cluster(CLUSTER)
    device = cluster.device.with_constants(matmul=0.5, link_inner=0.4)
    network = dataclasses.replace(load_model_config("2_6b"), dropout=0.0)
    stack = software_of(load_stack("pangu-alpha"), network, device.family)
    model, shape = CostModel(dataclasses.replace(cluster, device=device), stack), Shape.of(network)
    paths = []
    for number, (plan, batch) in enumerate(PLANS):
        job = Job(shape, batch, **plan)
        where = folder(tmp_path / str(number), plan, batch)
        paths.append(log(where, noisy(model.estimate(job).step), job.batch))
    return paths


def command(*words) -> int:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return run(parser.parse_args(list(map(str, words))))


def test_a_step_is_the_median_without_first_ones_and_outliers(tmp_path):
    where = folder(tmp_path / "run", {"dp": 8})
    found = read_run(log(where, noisy(0.5), 32))
    assert found.seconds == pytest.approx(0.5, rel=0.01) and found.spread < 0.02
    assert (found.steps, found.dropped) == (17, 3)
    assert (found.job.dp, found.job.micro_batch, found.job.shape.layers) == (8, 4, 32)


def test_a_last_line_cut_by_a_kill_is_left_out(tmp_path):
    path = log(folder(tmp_path / "run", {"dp": 8}), noisy(0.5), 32)
    whole = read_run(path)
    path.write_text(path.read_text() + '{"step": 21, "tok')
    assert read_run(path) == whole


def test_logs_of_old_and_new_versions_are_read(tmp_path):
    """A loss that was not finite: NaN in older logs, null in newer ones; a source's name may break lines."""
    path = log(folder(tmp_path / "run", {"dp": 8}), noisy(0.5), 32)
    whole, text = read_run(path), path.read_text()
    for loss in ("NaN", "Infinity", "null", '1.0, "loss/a\u2028b": 2.0'):
        path.write_text(text.replace('"loss": 1.0', f'"loss": {loss}'))
        assert read_run(path) == whole


def test_broken_logs_say_what_is_wrong(tmp_path):
    where = folder(tmp_path / "run", {"dp": 8})
    path = where / "metrics.jsonl"
    with pytest.raises(ValueError, match="metrics.jsonl: no such file"):
        read_run(path)
    path.write_text('{"step": 1}\nnot json\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read_run(path)
    path.write_text('{"step": 1, "tokens_per_s": "fast"}\n')
    with pytest.raises(ValueError, match="line 1: tokens_per_s is 'fast'"):
        read_run(path)
    path.write_text('{"step": 1, "validation_loss": 3}\n')
    with pytest.raises(ValueError, match="0 steps with tokens_per_s"):
        read_run(path)
    log(where, noisy(0.5), 16)
    with pytest.raises(ValueError, match="a step read 16 samples, the config says 32"):
        read_run(path)
    (where / "config.yaml").write_text("model: 2_6b\nrun: {output: o, steps: 1, oops: 1}\n")
    with pytest.raises(ConfigError, match="config.yaml: .*oops"):
        read_run(path)
    (where / "config.yaml").unlink()
    with pytest.raises(ValueError, match="no config of the run; name it with --config"):
        read_run(path)


def test_runs_that_do_not_fit_the_cluster(tmp_path):
    stack = load_stack("pangu-alpha")
    large = read_run(log(folder(tmp_path / "large", {"dp": 8}), noisy(0.5), 32))
    with pytest.raises(ValueError, match="ran on 8 devices, cluster 910b-4 has 4"):
        as_rows([large], load_cluster("910b-4"), stack)
    small = read_run(log(folder(tmp_path / "cpu", {}, 4, "CPU"), noisy(0.5), 4))
    with pytest.raises(ValueError, match="run.device is CPU, .* describe the machine"):
        as_rows([small], load_cluster("910b-4"), stack)


def test_fit_finds_what_slowed_the_cluster(logs, tmp_path, capsys):
    new = tmp_path / "cluster.yaml"
    words = [word for path in logs for word in ("--from", path)]
    assert command(*words, "--cluster", CLUSTER, "--output", new, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {"matmul", "link_inner"} <= set(found["fitted"])
    assert found["constants"]["matmul"] == pytest.approx(0.5, rel=0.1)
    assert found["constants"]["link_inner"] == pytest.approx(0.4, rel=0.1)
    mean = found["mean"]
    assert mean["after"] < 0.02 and mean["after"] <= mean["left_out"] < 0.5 * mean["before"]
    cluster = load_cluster(str(new))
    assert cluster.count == 64 and cluster.levels == load_cluster(CLUSTER).levels
    assert dataclasses.asdict(cluster.device.constants) == found["constants"]
    assert cluster.device.sources["constants"].startswith("fitted to 4 runs: matmul")


def test_one_run_tells_one_constant(logs, capsys):
    assert command("--from", logs[2], "--cluster", CLUSTER) == 0
    text = capsys.readouterr().out
    assert "matmul: 0." in text and "link_inner: 0." not in text
    assert "kept, because these runs do not determine them" in text and "in-sample" in text


def test_a_cpu_run_fits_the_user_s_own_device(tmp_path, capsys):
    cluster = tmp_path / "laptop.yaml"
    cluster.write_text(LAPTOP)
    path = log(folder(tmp_path / "run", {}, 4, "CPU"), noisy(1100.0), 4)
    new = tmp_path / "fitted.yaml"
    assert command("--from", path, "--cluster", cluster, "--output", new) == 0
    assert command("--from", path, "--cluster", new, "--json") == 0
    assert json.loads(capsys.readouterr().out.split("fitted.yaml\n")[1])["mean"]["before"] < 0.01


def test_a_constant_at_its_bound_is_said(logs, tmp_path, capsys):
    where = logs[0].parent
    assert command("--from", log(where, noisy(1e-3), 4), "--cluster", CLUSTER) == 0
    assert "-> 1 (at its bound: check the device's figures)" in capsys.readouterr().out


def test_configs_must_be_as_many_as_logs(logs):
    with pytest.raises(ValueError, match="1 for 2 --from"):
        command("--from", logs[0], "--from", logs[1], "--config", "config.yaml", "--cluster", CLUSTER)


def test_a_run_that_no_constants_explain_is_refused(tmp_path):
    """As that of a CPU whose config says `device: auto`."""
    path = log(folder(tmp_path / "cpu", {}), noisy(900.0), 4)
    new = tmp_path / "mine.yaml"
    with pytest.raises(ValueError, match=r"cpu/metrics.jsonl: a step took .* on 910b-64; was the run on"):
        command("--from", path, "--cluster", CLUSTER, "--output", new)
    assert not new.exists()
