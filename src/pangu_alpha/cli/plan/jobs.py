"""What the options of plan.py ask for (network, plan, job, chip), and the report that its commands write."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from pangu_alpha.cli.options import given_fields, plan_fields
from pangu_alpha.config.families import Chip
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import ConfigError, build, read_yaml
from pangu_alpha.config.zoo import load_network
from pangu_alpha.files.shown import quoted
from pangu_alpha.files.writing import json_text, write_text
from pangu_alpha.proof.dry_run.job import AttentionDropout, Job


def plan_of(options: argparse.Namespace) -> ParallelPlan:
    """Returns the plan of the options; for a pipeline without micro-batches, chooses and prints their number.

    Raises:
        ConfigError: The plan breaks a rule, or does not have the number of devices asked for.
    """
    values = plan_fields(options.plan) | given_fields(options, ParallelPlan)
    stages = values.get("pp", 1)
    if type(stages) is int and stages > 1 and values.get("micro_batches") is None:
        values["micro_batches"] = stages
        said = f"--micro-batches {stages}: none given, so the least that fills {stages} stages"
        print(said, file=sys.stderr if options.json else sys.stdout)
    plan = build(ParallelPlan, values)
    if options.devices is not None and options.devices != plan.devices:
        raise ConfigError([_devices_problem(options.devices, plan)])
    return plan


def _devices_problem(devices: int, plan: ParallelPlan) -> str:
    said = f"devices: {devices}, but dp {plan.dp} * tp {plan.tp} * pp {plan.pp} = {plan.devices}"
    other, rest = divmod(devices, plan.tp * plan.pp)
    if other and not rest:
        return f"{said}; dp {other} would fit"
    return f"{said}; tp * pp = {plan.tp * plan.pp} does not divide {devices}, so no dp fits"


def job_of(options: argparse.Namespace) -> Job:
    """Returns the job to compile."""
    model, optim = network_of(options)
    return Job(
        model,
        plan_of(options),
        optim,
        _batch_size(options),
        chip=chip_of(options),
        initialize=getattr(options, "initialize", False),
        attention_dropout=_attention_dropout(options),
    )


def _attention_dropout(options: argparse.Namespace) -> AttentionDropout:
    """Who draws the masks of attention weights: the option's value, else that in the YAML of the plan."""
    given = getattr(options, "attention_dropout", None)
    return given or _run_of_plan(options).get("attention_dropout", Job.attention_dropout)


def chip_of(options: argparse.Namespace) -> Chip:
    """The family of chips: the option's value, else that in the YAML of the plan, else the A2's."""
    chip = getattr(options, "chip", None) or _run_of_plan(options).get("chip", "auto")
    return Job.chip if chip == "auto" else chip


def _run_of_plan(options: argparse.Namespace) -> dict[str, Any]:
    """The section run in the YAML file of --plan."""
    run = read_yaml(options.plan).get("run") if options.plan is not None else None
    return run if isinstance(run, dict) else {}


def _batch_size(options: argparse.Namespace) -> int:
    """Sequences of a micro-batch: the option's value, else that in the YAML of the plan, else 1."""
    if options.batch_size is not None:
        return options.batch_size
    size = _run_of_plan(options).get("batch_size", 1)
    if type(size) is not int or size < 1:
        raise ValueError(
            f"--plan: {options.plan}: run.batch_size is {quoted(size)}; give a whole number above 0"
        )
    return size


def network_of(options: argparse.Namespace) -> tuple[ModelConfig, OptimConfig]:
    network = load_network(options.model)
    if options.num_layers is None:
        return network.model, network.optim
    return replace(network.model, num_layers=options.num_layers), network.optim


def write_report(options: argparse.Namespace, folder: Path, values: dict[str, Any]) -> None:
    text = json_text(values)
    if options.out:
        write_text(folder / "report.json", text + "\n")
    if options.json:
        print(text)
