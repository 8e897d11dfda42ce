"""Reports a run: one line a step on the console, in metrics.jsonl and in TensorBoard, and loss.png.

Knows numbers and files; knows nothing of MindSpore.
"""

from __future__ import annotations

import io
import logging
import math
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pangu_alpha.files.paths import free_name
from pangu_alpha.files.reading import read_json_lines, require_file
from pangu_alpha.files.writing import json_text, replacing_file, write_all, write_bytes
from pangu_alpha.training.reporting.events import Events
from pangu_alpha.training.reporting.units import Units

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
CURVE = "loss.png"
NOT_FINITE = "not_finite"


class ReportError(ValueError):
    """The disk does not accept what a run reports."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the entries of a metrics.jsonl; invalid lines, such as a last one cut by a kill, are left out.

    A number that was not finite is None, and its key is in the entry's list "not_finite"; files of older
    versions hold NaN and Infinity instead, which are returned as such.

    Raises:
        OSError: The file cannot be read.
    """
    return [entry for _, entry in read_json_lines(path, numbers_only=False) if isinstance(entry, dict)]


def metrics_line(entry: dict[str, Any]) -> str:
    """Formats an entry as a line of metrics.jsonl.

    JSON has no NaN and no Infinity, so these become null, and the list "not_finite" names their keys.
    """
    wrong = [key for key, value in entry.items() if isinstance(value, float) and not math.isfinite(value)]
    return json_text(entry | ({NOT_FINITE: wrong} if wrong else {}), indent=None) + "\n"


class Report:
    """Writes a run's metrics.

    Args:
        folder: The run's output folder.
        step: Number of steps done before. Later entries, written by a process that was killed, are dropped,
            because they will be written again.
        steps: Number of steps of the whole run, for the progress bar.
        log_every: Number of steps between two console lines.
        tensorboard: Whether to write events into `folder`/events.
        units: Units of the numbers.
    """

    def __init__(
        self, folder: Path, step: int, steps: int, log_every: int, tensorboard: bool, units: Units
    ) -> None:
        self._folder = folder
        self._units = units
        self._log_every = log_every
        self._steps = steps
        self._path = _rewound(folder / METRICS, step)
        # The file has no buffer, so that a line that the disk refused is not tried again when the file is
        # closed.
        self._file = self._path.open("ab", buffering=0)
        self._events = Events(folder / "events", step) if tensorboard else None
        self._bar = tqdm(
            total=steps, initial=step, unit="step", disable=not sys.stderr.isatty(), smoothing=0.1
        )

    def step(self, entry: dict[str, Any]) -> None:
        """Reports a step; `entry` holds step, loss, grad_norm, loss_scale, lr, mfu, the speed, ..."""
        self._write("train", entry)
        self._bar.update(1)
        self._bar.set_postfix(loss=f"{entry['loss']:.3f}", refresh=False)
        if entry["step"] % self._log_every == 0 or entry["step"] == self._steps or not entry["applied"]:
            self.say(format_step(entry, self._steps, self._units))

    def validation(self, entry: dict[str, Any], text: str) -> None:
        """Reports a validation.

        Args:
            entry: Holds the step and what was measured.
            text: The measurements for the console.
        """
        self._write("validation", entry)
        self.say(f"step {entry['step']:>6}/{self._steps}  {text}")

    def say(self, text: str) -> None:
        """Writes a line on the console without breaking the progress bar."""
        self._bar.write(text, file=sys.stdout)

    def close(self) -> None:
        """Flushes everything and draws loss.png."""
        self._bar.close()
        self._file.close()
        if self._events is not None:
            self._events.close()
        try:
            draw_curve(read_metrics(self._path), self._folder / CURVE, self._units)
        except OSError as error:  # no reason to fail: the run is done, or ends with an error of its own
            logger.warning("%s: not drawn: %s", self._folder / CURVE, error.strerror)

    def _write(self, kind: str, entry: dict[str, Any]) -> None:
        try:
            write_all(self._file.fileno(), metrics_line(entry).encode())
        except OSError as error:
            raise ReportError(
                f"{self._path}: not written: {error.strerror}; the run ends here, and its last checkpoint "
                "stands: make room, and start it again with the same command"
            ) from error
        if self._events is None:
            return
        for name, value in entry.items():
            if isinstance(value, int | float) and name != "step":
                self._events.add(f"{kind}/{name}", value, entry["step"])


class SilentReport:
    """Accepts the same calls as Report and keeps nothing; for the ranks that do not report."""

    def step(self, entry: dict[str, Any]) -> None:
        """See Report."""

    def validation(self, entry: dict[str, Any], text: str) -> None:
        """See Report."""

    def say(self, text: str) -> None:
        """Writes a line into this rank's own log."""
        print(text, flush=True)

    def close(self) -> None:
        """See Report."""


def format_step(entry: dict[str, Any], steps: int, units: Units) -> str:
    """Formats the console's line of one step."""
    parts = [
        f"step {entry['step']:>6}/{steps}",
        f"loss {entry['loss']:.4f}",
        f"grad norm {entry['grad_norm']:.3f}",
        f"scale {entry['loss_scale']:g}",
        f"lr {entry['lr']:.3e}",
        f"{entry[units.rate_key]:,.0f} {units.rate}",
    ]
    if entry["mfu"] is not None:
        parts.append(f"MFU {entry['mfu']:.1%}")
    if not entry["applied"]:
        parts.append(f"SKIPPED ({entry['skipped']} so far)")
    return "  ".join(parts)


def draw_curve(entries: Iterable[dict[str, Any]], path: Path, units: Units) -> None:
    """Draws training and validation loss over steps.

    Args:
        entries: Entries of metrics.jsonl.
        path: PNG file to write.
        units: Units of the numbers.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = list(entries)
    train, validation = ([*_points(entries, key)] for key in ("loss", "validation_loss"))
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for points, label, style in ((train, "training", "-"), (validation, "validation", "o-")):
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1, markersize=4)
    axes.set(xlabel="step", ylabel=f"loss, {units.loss}", title=units.title)
    axes.grid(alpha=0.3)
    if train or validation:
        axes.legend()
    content = io.BytesIO()
    figure.savefig(content, dpi=120)
    pyplot.close(figure)
    write_bytes(path, content.getvalue())


def _points(entries: Iterable[dict[str, Any]], key: str) -> Iterator[tuple[int, float]]:
    """Yields (step, value) of the entries in which the value exists and is finite."""
    for entry in entries:
        value = entry.get(key)
        if isinstance(value, int | float) and math.isfinite(value) and isinstance(entry.get("step"), int):
            yield entry["step"], value


def _rewound(path: Path, step: int) -> Path:
    """Removes entries beyond a step, and invalid lines; all others stay."""
    if not path.exists():
        return path
    require_file(path)
    lines = [*read_json_lines(path, numbers_only=False)]  # older versions wrote NaN
    broken = [number for number, entry in lines if not isinstance(entry, dict)]
    if broken and broken != [lines[-1][0]]:  # more is broken than a last line that a kill cut off
        copy = free_name(path.with_name(f"{path.name}.damaged"))
        shutil.copyfile(path, copy)
        logger.warning(
            "%s: %d lines are damaged, the first is line %d; they are left out, and the file as it was is %s",
            path,
            len(broken),
            broken[0],
            copy.name,
        )
    with replacing_file(path) as stream:
        for _, entry in lines:
            if isinstance(entry, dict) and not _is_beyond(entry, step):
                stream.write(metrics_line(entry))
    return path


def _is_beyond(entry: dict[str, Any], step: int) -> bool:
    return isinstance(entry.get("step"), int) and entry["step"] > step
