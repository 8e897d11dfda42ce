"""What a process of a replayed training run reads and leaves in its folder."""

from __future__ import annotations

from pathlib import Path

REQUEST, STEPS, EXIT_CODE = "request.json", "steps.jsonl", "exit_code"
WAITS = "waits"  # is there while a rank waits for its signal


def state_file(folder: Path, steps: int) -> Path:
    """Parameters and moments of a process after so many steps."""
    return folder / f"state_{steps:06d}.npz"
