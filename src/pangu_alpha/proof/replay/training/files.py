"""The files that a process of a replayed training run reads and writes in its folder."""

from __future__ import annotations

from pathlib import Path

REQUEST, STEPS, EXIT_CODE = "request.json", "steps.jsonl", "exit_code"
WAITS = "waits"  # exists while a rank waits for its signal


def state_file(folder: Path, steps: int) -> Path:
    """The file with a process's parameters and moments after a number of steps."""
    return folder / f"state_{steps:06d}.npz"
