"""How fast checkpoints are merged and cut anew, beside a plain copy of the same bytes and MindSpore's tools.

A synthetic checkpoint has the 2.6B's names and proportions, weights and both moments, written for dp 4, tp 8,
level1 (32 parts). It is merged to one process's checkpoint and cut for tp 2, pp 4 by src/merge_checkpoint.py,
and copied file by file (shutil.copyfile). Each is a process of its own and ends with its output on the disk
(fsync); the source's pages are dropped from the cache before, the output is deleted after. Merging verifies
the xxh3 of every tensor and makes that of every new one in the same pass. Rounds alternate; medians are
compared.

MindSpore's unified_safetensors and transform_checkpoints do the same with a smaller checkpoint (--peer-size)
of their own form, in which every rank has all it holds; their time is that of the call, ours of the process.

The last line is JSON: GB/s, ratio to the copy (asked: at least 0.6), peak memory in MB, seconds of the peers.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import machine
import numpy as np
from rounds import report, summarize, verdict

from pangu_alpha.checkpoint.foreign.mindspore.export import export_slices
from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.naming import MOMENTS
from pangu_alpha.checkpoint.native.folders import part_name
from pangu_alpha.checkpoint.native.format import MANIFEST, Manifest, seal_folder, write_checkpoint
from pangu_alpha.checkpoint.native.tensor_file import checksum
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.cli.options import byte_size
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.parallel.layout import layouts, slice_writers

MERGE = Path(__file__).parents[1] / "src" / "merge_checkpoint.py"
PLAN = ParallelPlan(dp=4, tp=8, optimizer_parallel="level1")
NEW_PLAN = ParallelPlan(tp=2, pp=4, micro_batches=4)
STRATEGY = "ckpt_strategy.ckpt"
BLOCK = 1 << 24  # random numbers that all tensors are made of

COPY = """
import os, shutil, sys
from pathlib import Path
source, target = map(Path, sys.argv[1:])
files = [path for path in sorted(source.rglob("*")) if path.is_file()]
for path in files:
    place = target / path.relative_to(source)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, place)
for path in files:
    descriptor = os.open(target / path.relative_to(source), os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)
"""

# Times the call alone, without MindSpore's import. Left to itself, unified_safetensors of MindSpore 2.9 waits
# for ever while more than half of the machine's memory is taken.
PEER = """
import os, re, resource, sys, time, types
import psutil
psutil.virtual_memory = lambda: types.SimpleNamespace(percent=0)
import mindspore
tool, source, target, source_strategy, target_strategy = sys.argv[1:]
os.makedirs(target, exist_ok=True)
began = time.perf_counter()
if tool == "unified_safetensors":
    mindspore.unified_safetensors(source, source_strategy, target)
else:
    mindspore.transform_checkpoints(source, target, "slice", source_strategy, target_strategy)
print(f"took {time.perf_counter() - began} s")
held = int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
held += resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # the largest of its own processes
print(f"peak memory {held * 1024 // 10**6} MB")
"""


class Round(NamedTuple):
    """A process that ended: its time, and the most memory it says it held. Units: seconds, MB."""

    seconds: float
    memory: float


def model_of_size(size: int, tensors: int) -> ModelConfig:
    """The 2.6B with a smaller hidden size: so many float32 arrays a parameter, `size` bytes in all."""
    model, hidden = load_model_config("2_6b"), 64
    while True:
        wider = ModelConfig(
            model.vocab_size, hidden + 64, model.num_layers, model.num_heads, model.seq_length
        )
        if wider.parameter_count * 4 * tensors >= size:
            return wider
        hidden += 64


def write_slices(path: Path, model: ModelConfig, stems: Mapping[str, Sequence[str]]) -> None:
    """A checkpoint as the ranks of PLAN write it, of random numbers.

    Args:
        path: Its folder.
        model: The network's shape.
        stems: Prefixes of the tensors' names in each file.
    """
    numbers = np.random.default_rng(1).standard_normal(BLOCK, np.float32)

    def cut(shape: Sequence[int]) -> np.ndarray:
        return numbers[: math.prod(shape)].reshape(shape)

    placed = layouts(model, PLAN)
    writers, shapes = slice_writers(placed, PLAN), parameter_shapes(model)
    config = {"model": to_mapping(model), "parallel": to_mapping(PLAN)}
    parts = {}
    for rank in range(PLAN.devices):
        own = [(name, at) for name in writers for at, writer in writers[name].items() if writer == rank]
        arrays, slices = {}, {}
        for stem, prefixes in stems.items():
            arrays[stem] = {
                prefix + name: cut(placed[name].slice_shape) for prefix in prefixes for name, _ in own
            }
            slices[stem] = {
                prefix + name: {"start": [*at], "shape": [*shapes[name]]}
                for prefix in prefixes
                for name, at in own
            }
        part = path / part_name(rank)
        write_checkpoint(part, arrays, Manifest(1, 1, config, kind="part", slices=slices))
        parts[part.name] = checksum((part / MANIFEST).read_bytes())
    seal_folder(path, Manifest(1, 1, config, kind="slices", parts=parts))


def run(command: Sequence[object], source: Path, target: Path) -> Round:
    """Runs a program that makes `target` of `source`, whose pages are not in memory; deletes the target."""
    drop_pages(source)
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True)
    own = re.search(r"took (\S+) s", done.stdout)
    seconds = float(own[1]) if own else time.perf_counter() - began
    if done.returncode or not target.exists():
        raise SystemExit(f"{command}: ended with status {done.returncode}: {done.stdout}")
    shutil.rmtree(target)
    peak = re.search(r"peak memory (\d+) MB", done.stdout)
    return Round(seconds, float(peak[1]) if peak else 0.0)


def drop_pages(folder: Path) -> None:
    """Takes a folder's files, which are on the disk, out of the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def compare(folder: Path, size: int, rounds: int, budget: str) -> dict[str, Any]:
    """Ours beside a plain copy."""
    source, target = folder / "source", folder / "target"
    write_slices(source, model_of_size(size, 3), {"model": [""], "optimizer": MOMENTS})
    total = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    ours = [MERGE, source, target, "--quiet", "--budget", budget]
    programs = {
        "copy": ["-c", COPY, source, target],
        "merge": [*ours, "--full"],
        "reshard": [*ours, "--tp", 2, "--pp", 4],
    }
    times: dict[str, list[Round]] = {name: [] for name in programs}
    for number in range(rounds):
        for name, command in programs.items():
            times[name].append(run(command, source, target))
            print(f"round {number}: {name}: {times[name][-1]}", file=sys.stderr, flush=True)
    shutil.rmtree(source)
    summaries = {name: summarize([each.seconds for each in found]) for name, found in times.items()}
    report(summaries)
    speed = {name: total / each.median for name, each in summaries.items()}
    return {
        "gigabytes": round(total / 1e9, 2),
        **{f"{name}_gb_s": round(value / 1e9, 3) for name, value in speed.items()},
        **{f"{name}_of_copy": round(speed[name] / speed["copy"], 3) for name in ("merge", "reshard")},
        **{
            f"{name}_peak_mb": round(max(each.memory for each in times[name]))
            for name in ("merge", "reshard")
        },
        "budget_mb": round(byte_size(budget) / 1e6),
        **verdict(summaries),
    }


def compare_peers(folder: Path, size: int, budget: str) -> dict[str, Any]:
    """Ours beside MindSpore's tools, once, each with slices of the same numbers in its own form."""
    source, theirs, target = folder / "source", folder / "theirs", folder / "target"
    write_slices(source, model_of_size(size, 3), {"model": [""], "optimizer": MOMENTS})
    opened, quiet = open_source(source), Limits(progress=False)
    export_slices(opened, theirs, PLAN, form="safetensors", limits=quiet)
    export_slices(opened, folder / "other", NEW_PLAN, form="safetensors", limits=quiet)
    strategies = [folder / "from.ckpt", folder / "to.ckpt"]
    shutil.move(theirs / STRATEGY, strategies[0])
    shutil.move(folder / "other" / STRATEGY, strategies[1])
    shutil.rmtree(folder / "other")
    ours = [MERGE, source, target, "--quiet", "--budget", budget]
    pairs = {
        "merge": ([*ours, "--full"], "unified_safetensors"),
        "reshard": ([*ours, "--tp", 2, "--pp", 4], "transform_checkpoints"),
    }
    result: dict[str, Any] = {"peer_gigabytes": round(size / 1e9, 2)}
    for name, (command, tool) in pairs.items():
        peer = ["-c", PEER, tool, theirs, target, *strategies]
        for who, took in (("ours", run(command, source, target)), (tool, run(peer, theirs, target))):
            print(f"{name}: {who}: {took}", file=sys.stderr, flush=True)
            result[f"peer_{name}_{who}_s"] = round(took.seconds, 2)
            result[f"peer_{name}_{who}_peak_mb"] = round(took.memory)
    return result


def _size_or_none(text: str) -> int:
    return 0 if text == "0" else byte_size(text)


def main() -> None:
    """Prints the comparison as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--size", type=byte_size, default=byte_size("8GB"), help="of the checkpoint (default: 8GB)"
    )
    parser.add_argument("--peer-size", type=_size_or_none, default=byte_size("512MB"), help="0 leaves "
        "MindSpore out (default: 512MB)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", default="2GB")
    parser.add_argument("--folder", type=Path, help="on a disk with room for twice the size (default: the "
        "system's temporary one)")  # fmt: skip
    options = parser.parse_args()
    found = machine.this_machine(machine.usable_cores())
    with tempfile.TemporaryDirectory(prefix="merge_speed_", dir=options.folder) as name:
        needed = int(2.2 * options.size)
        if shutil.disk_usage(name).free < needed:
            raise SystemExit(f"{name}: {needed / 1e9:.0f} GB are needed; name another disk with --folder")
        result = compare(Path(name), options.size, options.rounds, options.budget)
        if options.peer_size:
            result |= compare_peers(Path(name), options.peer_size, options.budget)
    print(json.dumps({**found, **result}))


if __name__ == "__main__":
    main()
