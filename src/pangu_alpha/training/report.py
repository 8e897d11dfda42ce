"""What a run says: one line a step on the console, in metrics.jsonl and in TensorBoard, and loss.png.

Knows numbers and files; knows nothing of MindSpore.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

METRICS = "metrics.jsonl"
CURVE = "loss.png"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The entries of a metrics.jsonl; a last line cut by a kill is left out."""
    entries = []
    for line in path.read_text("utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


class Report:
    """Writes a run's metrics.

    Args:
        folder: The run's output.
        step: Steps done before; entries beyond it, of a process that was killed, are dropped, for they
            will come again.
        steps: Of the whole run, for the progress bar.
        log_every: Steps between two console lines.
        tensorboard: Write events into `folder`/events.
    """

    def __init__(self, folder: Path, step: int, steps: int, log_every: int, tensorboard: bool) -> None:
        self._folder = folder
        self._log_every = log_every
        self._steps = steps
        self._file = _rewound(folder / METRICS, step).open("a", encoding="utf-8")
        self._events = _event_writer(folder / "events", step) if tensorboard else None
        self._bar = tqdm(
            total=steps, initial=step, unit="step", disable=not sys.stderr.isatty(), smoothing=0.1
        )

    def step(self, entry: dict[str, Any]) -> None:
        """One optimizer step; `entry` holds step, loss, grad_norm, loss_scale, lr, tokens_per_s, mfu, ..."""
        self._write("train", entry)
        self._bar.update(1)
        self._bar.set_postfix(loss=f"{entry['loss']:.3f}", refresh=False)
        if entry["step"] % self._log_every == 0 or entry["step"] == self._steps or not entry["applied"]:
            self.say(format_step(entry, self._steps))

    def validation(self, entry: dict[str, Any]) -> None:
        """One validation; `entry` holds step, validation_loss, validation_perplexity and tokens."""
        self._write("validation", entry)
        self.say(
            f"step {entry['step']:>6}/{self._steps}  validation loss {entry['validation_loss']:.4f}  "
            f"perplexity {entry['validation_perplexity']:.2f}  ({entry['validation_tokens']:,} tokens)"
        )

    def say(self, text: str) -> None:
        """A line on the console that does not break the progress bar."""
        self._bar.write(text, file=sys.stdout)

    def close(self) -> None:
        """Flushes everything and draws loss.png."""
        self._bar.close()
        self._file.close()
        if self._events is not None:
            self._events.close()
        draw_curve(read_metrics(self._folder / METRICS), self._folder / CURVE)

    def _write(self, kind: str, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        if self._events is None:
            return
        for name, value in entry.items():
            if isinstance(value, int | float) and name != "step":
                self._events.add_scalar(f"{kind}/{name}", value, entry["step"])


class SilentReport:
    """Takes what Report takes and keeps nothing: for the ranks beside the one that reports."""

    def step(self, entry: dict[str, Any]) -> None:
        """See Report."""

    def validation(self, entry: dict[str, Any]) -> None:
        """See Report."""

    def say(self, text: str) -> None:
        """A line in this rank's own log."""
        print(text, flush=True)

    def close(self) -> None:
        """See Report."""


def format_step(entry: dict[str, Any], steps: int) -> str:
    """The console's line of one step."""
    parts = [
        f"step {entry['step']:>6}/{steps}",
        f"loss {entry['loss']:.4f}",
        f"grad norm {entry['grad_norm']:.3f}",
        f"scale {entry['loss_scale']:g}",
        f"lr {entry['lr']:.3e}",
        f"{entry['tokens_per_s']:,.0f} tokens/s",
    ]
    if entry["mfu"] is not None:
        parts.append(f"MFU {entry['mfu']:.1%}")
    if not entry["applied"]:
        parts.append(f"SKIPPED ({entry['skipped']} so far)")
    return "  ".join(parts)


def draw_curve(entries: Iterable[dict[str, Any]], path: Path) -> None:
    """Draws training and validation loss over steps.

    Args:
        entries: Of metrics.jsonl.
        path: PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = list(entries)
    train = [(e["step"], e["loss"]) for e in entries if "loss" in e and math.isfinite(e["loss"])]
    validation = [(e["step"], e["validation_loss"]) for e in entries if "validation_loss" in e]
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for points, label, style in ((train, "training", "-"), (validation, "validation", "o-")):
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1, markersize=4)
    axes.set(xlabel="step", ylabel="loss, nats per token", title="PanGu-α")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _rewound(path: Path, step: int) -> Path:
    if path.exists():
        kept = [entry for entry in read_metrics(path) if entry["step"] <= step]
        scratch = path.with_suffix(".tmp")
        scratch.write_text("".join(json.dumps(entry) + "\n" for entry in kept), "utf-8")
        scratch.replace(path)
    return path


def _event_writer(folder: Path, step: int) -> Any:
    from tensorboardX import SummaryWriter  # after mindspore: both bring a protobuf

    return SummaryWriter(str(folder), purge_step=step + 1)
