"""Kills the launcher of a training, one of its workers, or both with SIGKILL at random moments; starts again.

Two data parallel workers on the CPU, the whole way through run_distribute_train.sh and msrun. After each kill
the same command runs again at once. It must wait for what the first start left, never train beside it, end
well with the losses, weights and moments of the run that nobody disturbed, bit for bit, and leave no process
behind; every checkpoint that stands must be whole. The files of another run in the folder beside it must stay
as they are. Any breach ends the program with its traceback.

One line a moment. The last line is JSON: for each victim its moments, and how often the next start waited or
resumed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from pangu_alpha.checkpoint.native.format import read_checkpoint
from pangu_alpha.data.preprocess import PreprocessConfig, preprocess
from pangu_alpha.files.lock import process_birth
from pangu_alpha.processes.belonging import Launcher, marked
from pangu_alpha.text.vocabulary import train_vocabulary
from pangu_alpha.training.reporting.report import read_metrics

SCRIPT = Path(__file__).parents[1] / "run_scripts" / "run_distribute_train.sh"
VICTIMS = ("launcher", "worker", "both")
GRACE = 30  # seconds
_CHARACTERS = "天下大势分久必合合久必分周末七国分争并入于秦及秦灭之后楚汉分争又并入于汉"


@dataclass
class Started:
    """A launch under way.

    Args:
        process: The launcher.
        mark: What all it starts carry.
        began: When, by time.monotonic().
    """

    process: subprocess.Popen
    mark: str
    began: float


def make_config(folder: Path, steps: int) -> Path:
    """Writes records and the YAML of a run that trains in seconds."""
    rng = random.Random(7)
    texts = ["".join(rng.choices(_CHARACTERS, k=rng.randrange(5, 60))) + "。" for _ in range(200)]
    vocabulary = str(folder / "vocab.model")
    train_vocabulary(texts, vocabulary, 60)
    (folder / "text.txt").write_text("\n\n".join(texts), "utf-8")
    preprocess(
        PreprocessConfig((str(folder / "text.txt"),), vocabulary, str(folder / "records"), seq_length=16)
    )
    model = {"vocab_size": 60, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "seq_length": 16}
    settings = {
        "model": model | {"dropout": 0.0},
        "data": {"train": {"text": {"records": str(folder / "records")}}, "vocabulary": vocabulary},
        "optim": {"learning_rate": 1e-2, "end_learning_rate": 1e-3, "warmup_steps": 5, "decay_steps": 60},
        "run": {
            "output": "given below",
            "steps": steps,
            "batch_size": 3,
            "tensorboard": False,
            "peak_tflops": 0.1,
            "checkpoint": {"every": max(steps // 12, 1), "keep_last": 3},
        },
        "parallel": {"dp": 2},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), "utf-8")
    return path


def start(config: Path, run: Path, output: Path) -> Started:
    """Starts the script; what it prints goes to `output`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    words = ["--device", "CPU", "--nproc", "2", "--config", config, "--master-port", port, "--grace", GRACE,
             "--log-dir", run.with_name(run.name + "_logs"), f"run.output={run}"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PANGU_PYTHON": sys.executable}
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *map(str, words)], stdout=file, stderr=subprocess.STDOUT, env=environment
        )
    launcher = Launcher(process.pid, process_birth(process.pid), GRACE)
    return Started(process, launcher.mark, time.monotonic())


def steps_done(run: Path) -> int:
    """The newest step in the metrics of a run."""
    metrics = run / "metrics.jsonl"
    return (
        max((entry.get("step", 0) for entry in read_metrics(metrics)), default=0) if metrics.exists() else 0
    )


def wait_until(started: Started, run: Path, moment: float, before_steps: float, steps: int) -> str:
    """Waits for a moment: below 1 a share of the time before the first step, above it of the steps."""
    while started.process.poll() is None:
        seconds, step = time.monotonic() - started.began, steps_done(run)
        if step and moment < 1 or moment < 1 and seconds >= moment * before_steps:
            break
        if moment >= 1 and step >= (moment - 1) * steps:
            break
        time.sleep(0.005)
    return f"{time.monotonic() - started.began:5.1f} s, step {steps_done(run):3}"


def kill(started: Started, victim: str, rng: random.Random) -> str:
    """Kills a victim; says which."""
    children = sorted(marked(started.mark))
    workers = [pid for pid in children if _role(pid) == "MS_WORKER"]
    victims = [started.process.pid] if victim != "worker" or not children else []
    if victim != "launcher" and children:
        victims.append(rng.choice(workers or children))
    for pid in victims:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, signal.SIGKILL)
    started.process.wait(timeout=120)
    return f"{victim:<8} of {len(children)} processes"


def _role(pid: int) -> str | None:
    try:
        found = re.search(rb"(?:^|\0)MS_ROLE=(\w+)", Path(f"/proc/{pid}/environ").read_bytes())
    except OSError:
        return None
    return found and found[1].decode()


def start_again(config: Path, run: Path, output: Path, first: Started) -> dict[str, bool]:
    """The same command once more; it must not train beside what the first one left, and must end well."""
    second = start(config, run, output)
    looked = False
    while second.process.poll() is None:
        if not looked and "+ msrun" in output.read_text("utf-8"):
            looked = True
            assert not (left := marked(first.mark)), f"trains beside {left} of the first start"
        assert time.monotonic() - second.began < 240, output.read_text("utf-8")
        time.sleep(0.01)
    text = output.read_text("utf-8")
    assert second.process.returncode == 0, text
    assert not (left := marked(second.mark)), f"left behind: {left}"
    return {"waited": "earlier launcher is gone" in text, "resumed": "resumed from" in text}


def state(run: Path, steps: int) -> dict[str, bytes]:
    """Losses by step and all tensors of the last checkpoint, as bytes; every checkpoint is verified."""
    found = {}
    for folder in sorted((run / "checkpoints").glob("step_*")):
        checkpoint = read_checkpoint(folder)
        arrays = {stem: checkpoint.load(stem) for stem in ("model", "optimizer")}
        if folder.name == f"step_{steps:08d}":
            for stem, tensors in arrays.items():
                found |= {f"{stem} {name}": np.ascontiguousarray(a).tobytes() for name, a in tensors.items()}
    entries = [entry for entry in read_metrics(run / "metrics.jsonl") if "loss" in entry]
    assert [entry["step"] for entry in entries] == list(range(1, steps + 1)), "steps are missing or twice"
    return found | {"losses": json.dumps([entry["loss"] for entry in entries]).encode()}


def digest(folder: Path) -> str:
    """Of the names and bytes of all files below a folder."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def undisturbed(config: Path, run: Path, output: Path) -> float:
    """Runs to the end; seconds before its first step."""
    started, seconds = start(config, run, output), None
    while started.process.poll() is None:
        if seconds is None and steps_done(run):
            seconds = time.monotonic() - started.began
        time.sleep(0.02)
    assert started.process.returncode == 0 and seconds, output.read_text("utf-8")
    return seconds


def run_all(work: Path, moments: int, steps: int, rng: random.Random) -> dict[str, Counter]:
    """The kills, one after the other."""
    config = make_config(work, steps)
    before_steps = undisturbed(config, work / "other", work / "other.out")
    expected, other = state(work / "other", steps), digest(work / "other")
    print(f"undisturbed: {before_steps:.1f} s before the first of {steps} steps", flush=True)
    counts = {victim: Counter() for victim in VICTIMS}
    for number in range(moments):
        victim, moment, run = VICTIMS[number % 3], rng.uniform(0, 2), work / f"run_{number:02d}"
        first = start(config, run, work / f"{number:02d}_first.out")
        when = wait_until(first, run, moment, before_steps, steps)
        what = kill(first, victim, rng)
        outcome = start_again(config, run, work / f"{number:02d}_again.out", first)
        assert state(run, steps) == expected, f"{run}: another result than undisturbed"
        assert digest(work / "other") == other, "the files of another run have changed"
        counts[victim] += Counter(moments=1, **outcome)
        said = ", ".join(name for name, was in outcome.items() if was) or "began anew"
        print(f"{number + 1:2}  {what} killed after {when}: next start {said}; equal, whole", flush=True)
        shutil.rmtree(run)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--moments", type=int, default=20, help="kills in all (default: 20)")
    parser.add_argument("--steps", type=int, default=240, help="of each run (default: 240)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        counts = run_all(Path(work), options.moments, options.steps, random.Random(options.seed))
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
