"""Command line of the launchers in run_scripts/: reads options, finds the topology, and runs attempts.

It is called as `launch PROGRAM [options] [words for the program]`, with src/train.py, src/predict.py or
src/evaluate.py as PROGRAM.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from glob import glob
from importlib.metadata import version
from pathlib import Path

import pangu_alpha
from pangu_alpha.cli.launch.attempts import NPU, check_devices, dry, environment_of, run_attempts, this_node
from pangu_alpha.cli.launch.evaluate import launch_evaluate
from pangu_alpha.cli.launch.options import parse
from pangu_alpha.cli.launch.predict import launch_predict
from pangu_alpha.cluster.tables.rank_table import read
from pangu_alpha.config.run import TrainConfig, load_train_config, unrunnable
from pangu_alpha.config.schema import ConfigError, to_mapping
from pangu_alpha.files.lock import hold_folder
from pangu_alpha.launcher.commands import (
    Job,
    Node,
    plain_nodes,
    refusals,
    table_nodes,
    topology,
)
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.table_fit import unfit
from pangu_alpha.processes.belonging import OUTPUT, wait_for_orphans

_MOST_DEVICES = 1 << 20  # larger numbers are typing errors, and every worker would be listed


def main(arguments: Sequence[str]) -> int:
    """Launches a program on this node, which may be one of several.

    Args:
        arguments: Path of the program, then the words of the command line.

    Returns:
        Exit code: 0, the code of the first rank that failed, or 128 + n after a signal n.

    Raises:
        ValueError: Options are wrong or do not fit the plan.
    """
    if not arguments or arguments[0].startswith("-"):
        raise ValueError(
            "give the program first: src/train.py, src/predict.py or src/evaluate.py, then --help says more"
        )
    program, *words = arguments
    path = Path(program)
    name = path.parent.name if path.stem == "__main__" else path.stem
    options, rest = parse(words, name if name in ("train", "evaluate") else "predict")
    if name == "evaluate":
        return launch_evaluate(program, options, rest)
    if name != "train":
        return launch_predict(program, options, rest)
    config = load_train_config(options.config, _program_words(options, rest)[2:])
    job = make_job(program, options, rest, config)
    if options.compile_cache is not None:
        cache = str(
            Path(options.compile_cache).absolute() / graph_digest(config, on_ascend(config, options.start))
        )
        variables = {"MS_COMPILER_CACHE_ENABLE": "1", "MS_COMPILER_CACHE_PATH": cache}
        job = replace(job, environment={**job.environment, **variables})
    if options.dry:
        print(topology(job.nodes, config.parallel, full=True), dry(job, options.log_dir), sep="\n")
        return 0
    here = this_node(job, options)
    print(topology(job.nodes, config.parallel, here.place), flush=True)
    if on_ascend(config, options.start):
        check_devices(here)
    output = os.path.realpath(config.run.output)
    require_free(output, here, options.grace)
    return run_attempts(replace(job, environment={**job.environment, OUTPUT: output}), here, options)


def require_free(output: str, here: Node, grace: int) -> None:
    """Refuses an output folder in which another run works, before a worker is started.

    It waits for workers that a killed launcher left on this node, because they save and end by themselves.
    The node of rank 0 looks for other runs; later rank 0 itself locks the folder for all.

    Raises:
        ValueError: Another process works in the folder, or does not end.
    """
    wait_for_orphans(output, grace)
    if 0 in here.ranks and os.path.isdir(output):
        with hold_folder(output, "launching a training"):
            pass


def _program_words(options: argparse.Namespace, overrides: Sequence[str]) -> tuple[str, ...]:
    device = [] if options.device is None else [f"run.device={options.device}"]
    return ("--config", options.config, *overrides, *device)


def graph_digest(config: TrainConfig, ascend: bool) -> str:
    """Digest of everything that a run's graphs depend on.

    MindSpore 2.9 itself would silently reuse a cached graph whose layer sizes, clipping or plan are those of
    another config. This function can go when its cache compares them.
    """
    parts = to_mapping({name: getattr(config, name) for name in ("model", "optim", "parallel")})
    run = config.run
    kept = ("batch_size", "device", "chip", "attention_dropout", "float32_matmul_precision")
    parts |= {name: getattr(run, name) for name in kept}
    parts["mindspore"] = version("mindspore")
    if not ascend:  # the graph names the file of the kernels, or has none: model.operators.native.library
        parts["kernels"] = [os.environ.get("PANGU_KERNELS", "on"), *compiler_of_kernels(), str(Path.home())]
    if run.attention_dropout == "device":  # its kernel's seeds are constants of the graph
        parts["seed"] = run.seed
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    package = Path(pangu_alpha.__file__).parent
    for path in sorted(each for each in package.rglob("*") if each.suffix in (".py", ".cc", ".h")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def compiler_of_kernels() -> list[str]:
    """The words of CXX, or g++; and of a compiler that is there, its file and when that was changed."""
    words = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if (found := shutil.which(words[0])) is None:
        return words
    return [*words, found, str(os.stat(found).st_mtime_ns)]


def on_ascend(config: TrainConfig, start: str) -> bool:
    """Whether the workers of a run use Ascend.

    They do if the config says so; or, for device "auto", if the run is possible only there or NPUs exist
    here.

    Args:
        start: How the workers find each other.
    """
    if config.run.device != "auto":
        return config.run.device == "Ascend"
    plan = config.parallel
    return plan.tp * plan.pp > 1 or start == "rank-table" or bool(glob(f"{NPU}[0-9]*"))


def make_job(program: str, options: argparse.Namespace, overrides: Sequence[str], config: TrainConfig) -> Job:
    """Makes the job that the options ask for.

    Raises:
        ValueError: It contradicts the plan, cannot run, or every worker would refuse it.
    """
    plan = config.parallel
    if config.run.device == "CPU" and (plan.tp * plan.pp > 1 or options.start == "rank-table"):
        raise ValueError(
            "--device CPU: MindSpore 2.9 trains data parallel only there, started by msrun; use tp = pp = 1, "
            "or `python src/plan.py replay` to compute a plan on CPU"
        )
    if options.rank_table is not None:
        nodes = table_nodes(read(options.rank_table, Mesh.of(plan), options.chip))
    else:
        nproc = options.nproc or max(plan.devices // options.nnodes, 1)
        if options.nnodes * nproc > max(_MOST_DEVICES, plan.devices):
            raise ValueError(f"--nnodes, --nproc: {options.nnodes} nodes of {nproc} workers are too many")
        nodes = plain_nodes(options.nnodes, nproc)
    if problems := list(refusals(nodes, plan, options.nnodes, options.nproc)):
        raise ValueError("\n".join(problems))
    problems = list(unrunnable(config, plan.devices > 1 and on_ascend(config, options.start)))
    problems += (f"parallel.{each}" for each in unfit(plan, config.model, config.run.batch_size))
    if problems:
        raise ConfigError(problems)
    return Job(
        program=(program, *_program_words(options, overrides)),
        nodes=nodes,
        start=options.start if plan.devices > 1 else "alone",
        environment=environment_of(options),
        master=(options.master_addr or "127.0.0.1", options.master_port),
        rank_table=options.rank_table and os.path.abspath(options.rank_table),
        cluster_timeout=options.cluster_timeout,
        bind_cores=options.bind_cores,
    )


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
