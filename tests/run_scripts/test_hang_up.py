"""A training whose terminal goes: it saves and stops; and while it runs, nobody else may use its folder."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from pangu_alpha.files.lock import LOCK_NAME, holder_of
from pangu_alpha.training.reporting.report import read_metrics

PROGRAM = Path(__file__).parents[2] / "src" / "train.py"


def in_a_terminal(command):
    """The process, and the other end of a terminal that is its own."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(its)
    return process, ours


def wait_for_step(process, terminal, metrics, step):
    os.set_blocking(terminal, False)
    deadline = time.monotonic() + 120
    while not metrics.exists() or len(read_metrics(metrics)) < step:
        assert process.poll() is None and time.monotonic() < deadline
        try:
            os.read(terminal, 1 << 16)  # a terminal that nobody reads would stop it
        except BlockingIOError:
            time.sleep(0.02)


def test_a_hang_up_saves_and_stops_and_until_then_the_folder_is_in_use(cpu, hang_up, config, tmp_path):
    from pangu_alpha.cli.train import main

    words = [
        "--config",
        config,
        "parallel.dp=1",
        "run.device=CPU",
        f"run.output={tmp_path}",
        "run.steps=100000",
    ]
    words += [f"run.{key}=100000" for key in ("steps", "checkpoint.every", "evaluate_every")]
    process, terminal = in_a_terminal([sys.executable, str(PROGRAM), *words])
    wait_for_step(process, terminal, tmp_path / "metrics.jsonl", 3)
    written = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=f"in use since .* by training, process {process.pid} on this host"):
        main([*words, "run.seed=2"])
    assert (tmp_path / "config.yaml").read_bytes() == written
    assert holder_of(tmp_path).pid == process.pid
    os.close(terminal)
    assert process.wait(timeout=120) == 128 + signal.SIGHUP
    step = read_metrics(tmp_path / "metrics.jsonl")[-1]["step"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"step_{step:08d}"]
    assert not (tmp_path / LOCK_NAME).exists()
