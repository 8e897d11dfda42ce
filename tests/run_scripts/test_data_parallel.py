"""Two workers on this machine train as one process does, survive a kill, and stop when told to."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from pangu_alpha.checkpoint.native.format import read_checkpoint
from pangu_alpha.training.reporting.report import read_metrics

STEPS = 60


_spec = importlib.util.spec_from_file_location(
    "kill_runs", Path(__file__).parents[2] / "benchmarks" / "kill_runs.py"
)
kill_runs = importlib.util.module_from_spec(_spec)
sys.modules["kill_runs"] = kill_runs  # its dataclass looks itself up there
_spec.loader.exec_module(kill_runs)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def launch(script, config, folder, *words):
    """run_distribute_train.sh on two CPU workers, its output in folder/run."""
    return script(
        "run_distribute_train.sh", "--device", "CPU", "--nproc", "2", "--config", config,
        "--master-port", free_port(), "--log-dir", str(folder / "logs"), *words,
        f"run.output={folder / 'run'}",
    )  # fmt: skip


def entries(run, key):
    return {entry["step"]: entry[key] for entry in read_metrics(run / "metrics.jsonl") if key in entry}


def arrays_of(run):
    checkpoint = read_checkpoint(run / "checkpoints" / f"step_{STEPS:08d}")
    return {name: a for stem in ("model", "optimizer") for name, a in checkpoint.load(stem).items()}


def wait_for_step(process, run, step):
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and max(entries(run, "loss"), default=0) >= step):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.02)


def worker(launcher, rank):
    """Process of a rank, found as `ps` would."""
    for process in psutil.Process(launcher.pid).children(recursive=True):
        environment = process.environ()
        if environment.get("RANK_ID") == str(rank) and environment.get("MS_ROLE") == "MS_WORKER":
            return process
    raise AssertionError(f"no worker of rank {rank}")


@pytest.fixture(scope="module")
def undisturbed(script, config, tmp_path_factory):
    """Output folder of two workers nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = launch(script, config, folder)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "node 0           ranks 0-1         stage 0  data 0-1  tensor 0" in output
    assert "+ msrun --worker_num=2" in output and f"step     {STEPS}/{STEPS}" in output
    return folder / "run"


def test_two_workers_train_as_one_process(cpu, undisturbed, config, tmp_path):
    from pangu_alpha.cli.train import main

    overrides = ["parallel.dp=1", "run.batch_size=6", "run.device=CPU", f"run.output={tmp_path}"]
    assert main(["--config", config, *overrides]) == 0
    tolerances = {
        "loss": 2e-6,
        "validation_loss": 2e-6,
        "grad_norm": 1e-5,
        "samples": 0,
        "validation_tokens": 0,
    }
    for key, tolerance in tolerances.items():
        one, two = entries(tmp_path, key), entries(undisturbed, key)
        assert one.keys() == two.keys() and len(one) >= 3
        np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=tolerance, err_msg=key)
    first, last = entries(tmp_path, "loss")[1], entries(tmp_path, "loss")[STEPS]
    assert last < first - 0.3  # it learns, so equal losses say something


def test_a_killed_worker_is_named_and_the_run_goes_on_bit_for_bit(script, config, undisturbed, tmp_path):
    process = launch(script, config, tmp_path, "--restarts", "1")
    wait_for_step(process, tmp_path / "run", 13)
    worker(process, 1).send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "rank 1 on node 0 failed first, ended by SIGKILL (9)" in output
    assert re.search(r"restart 1 of 1.*--restarted.*resumed from \S+step_000000[1-5]0", output, re.S)
    assert entries(tmp_path / "run", "loss") == entries(undisturbed, "loss")
    originals = arrays_of(undisturbed)
    for name, array in arrays_of(tmp_path / "run").items():
        np.testing.assert_array_equal(array.view(np.uint32), originals[name].view(np.uint32), err_msg=name)
    logs = sorted(
        path.relative_to(tmp_path / "logs").as_posix() for path in tmp_path.glob("logs/*/*/worker*")
    )
    assert logs == [f"node_0/{attempt}/worker_{rank}.log" for attempt in ("001", "002") for rank in (0, 1)]


def test_a_signal_saves_and_stops_all(script, config, tmp_path):
    words = ("run.steps=100000", "run.checkpoint.every=100000", "run.evaluate_every=100000")
    process = launch(script, config, tmp_path, "--restarts", "3", *words)
    wait_for_step(process, tmp_path / "run", 3)
    workers = [worker(process, rank) for rank in (0, 1)]
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    step = max(entries(tmp_path / "run", "loss"))
    assert f"saved at step {step} and stopped" in output and "restart 1" not in output
    assert (tmp_path / "run" / "checkpoints" / f"step_{step:08d}").is_dir()
    left = [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
    assert not left


@pytest.mark.parametrize("victim", ["launcher", pytest.param("both", marks=pytest.mark.long)])
def test_the_next_start_waits_for_orphans_and_goes_on_bit_for_bit(config, undisturbed, tmp_path, victim):
    """benchmarks/kill_runs.py does it at as many moments as it is told."""
    other = kill_runs.digest(undisturbed)
    run = tmp_path / "run"
    first = kill_runs.start(config, run, tmp_path / "first.out")
    kill_runs.wait_until(first, run, 1.4, 0.0, STEPS)
    kill_runs.kill(first, victim, random.Random(0))
    assert first.process.returncode == -signal.SIGKILL
    outcome = kill_runs.start_again(config, run, tmp_path / "again.out", first)
    assert outcome["resumed"]
    assert kill_runs.state(run, STEPS) == kill_runs.state(undisturbed, STEPS)
    assert kill_runs.digest(undisturbed) == other
