"""Draws the loss curves of several runs in one picture, with the differences from the first one below.

`compare_losses.py --output PICTURE.png NAME=RUN [NAME=RUN ...]`, where RUN is a run's folder with its
metrics.jsonl. Prints a line a run: the mean training loss of its last 100 steps and its last validation.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pangu_alpha.training.reporting.report import read_metrics

WINDOW = 100  # steps of a mean; single steps differ by their batches


def curve(run: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the entries that have a key."""
    found = [
        (entry["step"], entry[key]) for entry in read_metrics(Path(run) / "metrics.jsonl") if key in entry
    ]
    steps, values = zip(*found, strict=True)
    return np.array(steps), np.array(values)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Means of WINDOW values, beginning with the first WINDOW of them."""
    return np.convolve(values, np.ones(WINDOW) / WINDOW, "valid")


def draw(runs: Mapping[str, str], path: str) -> None:
    """Draws training losses and validation losses, and how they differ from those of the first run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(8, 6), sharex=True, layout="constrained", height_ratios=(2, 1)
    )
    first = {key: curve(next(iter(runs.values())), key)[1] for key in ("loss", "validation_loss")}
    for name, run in runs.items():
        (line,) = above.plot(*curve(run, "loss"), linewidth=0.6, alpha=0.7, label=f"{name}: training")
        steps, values = curve(run, "validation_loss")
        above.plot(steps, values, "o--", color=line.get_color(), markersize=4, label=f"{name}: validation")
        below.plot(steps, values - first["validation_loss"], "o--", color=line.get_color(), markersize=4)
        steps, values = curve(run, "loss")
        difference = smoothed(values - first["loss"])
        below.plot(steps[WINDOW - 1 :], difference, color=line.get_color(), linewidth=1)
    above.set(ylabel="loss, nats a token")
    below.set(xlabel="step", ylabel=f"difference from {next(iter(runs))},\nmeans of {WINDOW} steps")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    above.legend()
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws, and prints what the runs ended with."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", required=True, help="PNG file to write")
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="name in the legend, and folder of a run")
    options = parser.parse_args(arguments)
    if wrong := [word for word in options.runs if "=" not in word]:
        parser.error(f"{wrong[0]}: give NAME=RUN, such as float32=runs/quickstart/run")
    runs = dict(word.split("=", 1) for word in options.runs)
    draw(runs, options.output)
    for name, run in runs.items():
        training, validation = curve(run, "loss")[1], curve(run, "validation_loss")[1]
        print(
            f"{name}: training loss {training[-WINDOW:].mean():.4f}, validation loss {validation[-1]:.4f}, "
            f"perplexity {math.exp(validation[-1]):.2f}"
        )


if __name__ == "__main__":
    main()
