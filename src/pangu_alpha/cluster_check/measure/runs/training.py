"""The same small training run on CPU, on the device, and on the device with a kill in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pangu_alpha.cluster_check.measure.operators import types_of
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.training_run import SAVE_EVERY, STEPS, config_of, curve, loaded, prepare
from pangu_alpha.training.loop import train

_POLL = 0.05  # seconds
_KILLED_AFTER = SAVE_EVERY + SAVE_EVERY // 2  # steps: between two checkpoints


def measure(place: Place) -> dict[str, Any]:
    """Returns the losses of the run's steps; for the killed run also after which step it was killed."""
    data = place.folder.parent / "data"
    prepare(data)
    # In float32 wherever the chip multiplies it, because rounding then hides the least.
    dtype = "float32" if "float32" in types_of(place.device) else "float16"
    output = place.folder / "run"
    path = config_of(data, output, place.device, dtype)
    killed = _killed_and_resumed(path, output) if place.measurement == "killed" else {}
    if not killed:
        code = train(loaded(path), place.device)
        if code:
            raise ValueError(f"the training ended with exit code {code}; its messages stand above")
    return {"dtype": dtype, **killed, **curve(output)}


def _killed_and_resumed(path: Path, output: Path) -> dict[str, int]:
    """Kills a training process between two checkpoints, and lets another one finish the run.

    Returns:
        The last step that the killed process had reported, and that of its newest checkpoint.
    """
    command = [sys.executable, "-m", "pangu_alpha.cli.train", "--config", str(path), "--resume", "auto"]
    with subprocess.Popen(command) as first:
        # On slow storage a checkpoint, which is written in the background, comes later than its step.
        while first.poll() is None and (len(_lines(output)) < _KILLED_AFTER or not _saved(output)):
            time.sleep(_POLL)
        first.send_signal(signal.SIGKILL)
    reached, saved = len(_lines(output)), _saved(output)
    if first.returncode != -signal.SIGKILL or reached >= STEPS:
        raise ValueError(f"the training could not be killed in time: it ended with code {first.returncode}")
    subprocess.run(command, check=True, env=os.environ)
    return {"killed_after": reached, "saved": saved}


def _saved(output: Path) -> int:
    """Step of the newest complete checkpoint; 0 if there is none."""
    found = (output / "checkpoints").glob("step_*")
    return max((int(each.name.removeprefix("step_")) for each in found), default=0)


def _lines(output: Path) -> list[bytes]:
    try:
        return [line for line in (output / "metrics.jsonl").read_bytes().splitlines() if b'"loss"' in line]
    except FileNotFoundError:
        return []
