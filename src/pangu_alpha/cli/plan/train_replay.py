"""plan.py train-replay: runs a plan's whole training in CPU processes, and compares it with one process."""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pangu_alpha.cli.options import Differs, add_options, natural, path_text
from pangu_alpha.config.families import Chip
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import RunConfig
from pangu_alpha.config.schema import ConfigError, build, nearest, parse_overrides, to_mapping
from pangu_alpha.config.zoo import load_network
from pangu_alpha.files.writing import json_text, write_text
from pangu_alpha.proof.replay.training.legs import Interruption
from pangu_alpha.proof.replay.training.replay import Leg, replay_training
from pangu_alpha.proof.replay.training.small_run import small_run


def add_replay_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options, except those of a plan."""
    add = parser.add_argument
    add_options(parser, RunConfig, steps=Differs(default=6), batch_size=Differs(default=2))
    add("--model", type=path_text, metavar="NAME|YAML", help="shape of the network (default: a network of "
        "hidden size 32)")  # fmt: skip
    add_options(parser, ModelConfig, num_layers=Differs(older="--layers", shown="the model's, or 2"))
    add("--then", action="append", metavar="KEY=VALUE", help="continue from a checkpoint under another plan "
        "after half of the steps; one word for each field that changes; may be repeated")  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--kill-rank", type=natural, metavar="RANK", help="kill this rank one step "
        "after half of the "
        "steps; the run continues from the checkpoint of the first half")  # fmt: skip
    how.add_argument("--stop-rank", type=natural, metavar="RANK", help="send this rank SIGTERM after half of "
        "the steps; all ranks save and stop, and the run continues from there")  # fmt: skip
    add("model_fields", nargs="*", metavar="key=value", help="keys of the network, such as dropout=0.1 "
        "compute_dtype=float16")  # fmt: skip


def run(options: argparse.Namespace, plan: ParallelPlan, chip: Chip, folder: Path) -> int:
    """Replays the training run that the options describe.

    Args:
        plan: The plan that the run begins with.
        chip: Family of the devices.
        folder: Folder for all files.

    Returns:
        Exit code: 0, or 1 if the ranks computed something else than one process.
    """
    legs, every = _legs(options, plan)
    config = small_run(folder, every, chip, **_shape(options, plan))
    report = replay_training(config, legs, folder)
    text = json_text(report.to_json())
    if options.out:
        write_text(folder / "report.json", text + "\n")
    print(text if options.json else report.table())
    if not report.passed and options.json:
        print(f"first difference: {report.first}", file=sys.stderr)
    return int(not report.passed)


def _legs(options: argparse.Namespace, plan: ParallelPlan) -> tuple[list[Leg], int]:
    """Returns the parts of the run, and the number of steps between its checkpoints."""
    steps, size = options.steps, options.batch_size
    told = options.kill_rank if options.kill_rank is not None else options.stop_rank
    if told is None and not options.then:
        return [Leg(plan, size, steps)], steps
    if steps < 3:
        raise ConfigError([f"--steps: {steps} are too few to be interrupted; give 3 or more"])
    if told is not None and told >= plan.devices:
        raise ConfigError([f"--kill-rank, --stop-rank: {told}: the plan's ranks are 0 to {plan.devices - 1}"])
    half = steps // 2
    after = build(ParallelPlan, asdict(plan) | parse_overrides(options.then or []))
    rows = size * plan.dp * plan.micro_batches
    if rows % (after.dp * after.micro_batches):
        raise ConfigError(
            [
                f"--then: the {rows} rows of a step cannot be dealt out to dp {after.dp} and "
                f"{after.micro_batches} micro-batches; give another --batch-size"
            ]
        )
    last = Leg(after, rows // (after.dp * after.micro_batches), steps)
    if told is None:
        return [Leg(plan, size, half), last], half
    number, when = (signal.SIGTERM, half) if options.kill_rank is None else (signal.SIGKILL, half + 1)
    return [Leg(plan, size, steps, Interruption(told, number, when)), last], half


def _shape(options: argparse.Namespace, plan: ParallelPlan) -> dict[str, Any]:
    """Fields of the model, without the vocabulary size, which the records determine."""
    shape = {"num_layers": max(2, plan.pp)}
    if options.model is not None:
        shape = to_mapping(load_network(options.model).model)
        if shape["compute_dtype"] == "auto":
            shape["compute_dtype"] = "float16"  # the meaning of "auto" on the device
        del shape["vocab_size"]
    given = parse_overrides(options.model_fields)
    allowed = [field.name for field in fields(ModelConfig) if field.name != "vocab_size"]
    if unknown := set(given) - {*allowed}:
        raise ConfigError(
            [f"{name}: not a field that can be given; {nearest(name, allowed)}" for name in sorted(unknown)]
        )
    layers = {} if options.num_layers is None else {"num_layers": options.num_layers}
    return shape | layers | given


if __name__ == "__main__":
    from pangu_alpha.cli import no_program

    no_program("pangu_alpha.cli.plan train-replay")
