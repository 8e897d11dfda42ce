"""Kills saving, merging and importing with SIGKILL at many moments, and looks at what is left.

Each kind of work runs in a forked process that is killed at random moments over the time it takes, and
before every single rename, fsync and marker. After each kill: what was whole before is still whole and equal;
what the kill left is recognised, never taken for a checkpoint; the same work run again finishes, its tensors
equal bit for bit. Any breach ends the program with its traceback.

    save          a run's process saves, the older checkpoint then goes
    async-save    the same in the background, the arrays changing under it
    save-slices   four ranks save their parts in the background
    merge         merge_checkpoint.py from slices of four ranks to one
    import        merge_checkpoint.py from the released slices

The last line is JSON: by kind, the kills at random moments and at operations, and what stood after them.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork must find no threads

import numpy as np

from pangu_alpha.checkpoint.foreign.mindspore.export import export_released
from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.naming import parameter_of
from pangu_alpha.checkpoint.native.background import BackgroundSaver
from pangu_alpha.checkpoint.native.distributed import SharedParts
from pangu_alpha.checkpoint.native.durable import scratch_folders, writer_name
from pangu_alpha.checkpoint.native.format import MARKER, Manifest, read_checkpoint
from pangu_alpha.checkpoint.native.store import CheckpointStore
from pangu_alpha.checkpoint.native.tensor_file import checksum
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.tensors import whole
from pangu_alpha.cli import merge_checkpoint
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.parallel.layout import layouts, written_slices

PLAN = ParallelPlan(dp=2, tp=2, optimizer_parallel="level1", optimizer_threshold=0)
State = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Work:
    """One kind of work.

    Args:
        prepare: Fills a folder with what is there before.
        run: The work, done in a forked process.
        standing: Verifies a folder after a kill; says what stands in it.
        last: What `standing` says when the work is done.
        repeats: Whether it may be done once more when it is done.
    """

    prepare: Callable[[Path], None]
    run: Callable[[Path], None]
    standing: Callable[[Path], str]
    last: str
    repeats: bool = True


class Operations:
    """Counts renames, flushes and markers of this process, and ends it just before a chosen one.

    Args:
        counter: Shared with the parent process.
        fatal: Number of the operation that is never done, from 1; 0 for none.
    """

    def __init__(self, counter: mmap.mmap, fatal: int) -> None:
        self._counter, self._fatal, self._lock = counter, fatal, threading.Lock()
        os.rename, os.fsync, os.open = map(self._counted, (os.rename, os.fsync, os.open))

    def _counted(self, function: Callable) -> Callable:
        def counting(*arguments, **options):
            is_open = function.__name__ == "open"
            if not is_open or (Path(arguments[0]).name == MARKER and arguments[1] & os.O_CREAT):
                self._tick()
            return function(*arguments, **options)

        return counting

    def _tick(self) -> None:
        with self._lock:
            done = int.from_bytes(self._counter[:8], "little") + 1
            self._counter[:8] = done.to_bytes(8, "little")
            if done == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)


def forked(work: Callable[[], None], fatal: int = 0, moment: float | None = None) -> tuple[bool, int]:
    """Runs work in a fork of this process.

    Args:
        work: What to do.
        fatal: Operation before which the fork ends itself; see Operations.
        moment: When to kill it from outside. Unit: seconds after its start.

    Returns:
        Whether it was killed, and how many operations it had begun.
    """
    counter = mmap.mmap(-1, 8)
    with tempfile.TemporaryFile() as log:
        child = os.fork()
        if child == 0:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            _live(work, counter, fatal)
        if moment is not None:
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        log.seek(0)
        assert status in (0, signal.SIGKILL), f"the work failed: {log.read().decode()}"
    return status != 0, int.from_bytes(counter[:8], "little")


def _live(work: Callable[[], None], counter: mmap.mmap, fatal: int) -> None:
    """The life of a forked process."""
    code = 1
    try:
        Operations(counter, fatal)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def states(model: ModelConfig, steps: int) -> list[State]:
    """Weights and moments of several steps."""
    shapes = parameter_shapes(model).items()

    def arrays(random: np.random.Generator, *prefixes: str) -> dict[str, np.ndarray]:
        return {p + name: random.random(shape, np.float32) for p in prefixes for name, shape in shapes}

    generators = [np.random.default_rng(step) for step in range(steps)]
    return [{"model": arrays(one, ""), "optimizer": arrays(one, "adam_m.", "adam_v.")} for one in generators]


def equals(path: Path, state: Mapping[str, Mapping[str, np.ndarray]]) -> bool:
    """Whether a checkpoint of any form holds exactly these arrays."""
    tensors = open_source(path).tensors
    return {stem: {*group} for stem, group in tensors.items()} == {s: {*g} for s, g in state.items()} and all(
        np.array_equal(read_box(stored, whole(stored.shape), name=name), state[stem][name])
        for stem, group in tensors.items()
        for name, stored in group.items()
    )


def contents(folder: Path) -> dict[Path, str]:
    """Checksum of every file."""
    return {path: checksum(path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


class Saves:
    """The three kinds of saving: step 1 is there, steps 2 and 3 are saved, one of them stays.

    Args:
        model: Whose tensors.
    """

    def __init__(self, model: ModelConfig) -> None:
        self.model = model
        self.states = states(model, 4)
        placed = layouts(model, PLAN)
        self.slices = [written_slices(placed, PLAN, rank) for rank in range(PLAN.devices)]
        self.sizes = {name: layout.slice_shape for name, layout in placed.items()}

    def manifest(self, step: int) -> Manifest:
        return Manifest(step, step, config={"model": to_mapping(self.model), "parallel": to_mapping(PLAN)})

    def works(self) -> dict[str, Work]:
        """All three."""
        alone = self.first_of_one_process
        return {
            "save": Work(alone, self.save, self.standing, "step 3"),
            "async-save": Work(alone, self.save_in_background, self.standing, "step 3"),
            "save-slices": Work(self.first_of_ranks, self.save_slices, self.standing, "step 3"),
        }

    def first_of_one_process(self, folder: Path) -> None:
        CheckpointStore(folder).save(self.states[1], self.manifest(1))

    def first_of_ranks(self, folder: Path) -> None:
        self._save_by_ranks(folder, [1])

    def save(self, folder: Path) -> None:
        for step in (2, 3):
            CheckpointStore(folder, keep_last=1).save(self.states[step], self.manifest(step))

    def save_in_background(self, folder: Path) -> None:
        live = {stem: {n: np.empty_like(a) for n, a in g.items()} for stem, g in self.states[1].items()}
        entries = [(stem, name, array) for stem, group in live.items() for name, array in group.items()]
        with BackgroundSaver(CheckpointStore(folder, keep_last=1).save) as saver:
            saver.reserve((stem, name, array.shape, array.dtype) for stem, name, array in entries)
            for step in (2, 3):
                saver.copied()
                for stem, name, array in entries:  # a training step, while the last save is being written
                    array[...] = self.states[step][stem][name]
                saver.save(entries, self.manifest(step))

    def save_slices(self, folder: Path) -> None:
        self._save_by_ranks(folder, [2, 3])

    def _save_by_ranks(self, folder: Path, steps: list[int]) -> None:
        attempt = writer_name()
        with ThreadPoolExecutor(PLAN.devices) as pool:
            ranks = range(PLAN.devices)
            saves = [pool.submit(self._save_by_rank, folder, rank, steps, attempt) for rank in ranks]
        if errors := [save.exception() for save in saves if save.exception()]:
            raise RuntimeError(
                "".join(line for error in errors for line in traceback.format_exception(error))
            )

    def _save_by_rank(self, folder: Path, rank: int, steps: list[int], attempt: str) -> None:
        parts = SharedParts(CheckpointStore(folder, keep_last=1), rank, PLAN.devices, attempt, patience=300.0)
        with BackgroundSaver(parts.save) as saver:
            for step in steps:
                entries, slices = [], {}
                for stem, group in self.states[step].items():
                    for name, array in group.items():
                        start = self.slices[rank].get(parameter_of(name))
                        if start is not None:
                            size = self.sizes[parameter_of(name)]
                            index = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
                            entries.append((stem, name, array[index]))
                            place = {"start": list(start), "shape": list(array.shape)}
                            slices.setdefault(stem, {})[name] = place
                manifest = self.manifest(step)
                saver.save(entries, Manifest(**{**vars(manifest), "slices": slices}))

    def standing(self, folder: Path) -> str:
        """The newest whole step; it is there, equal to what was saved, and the rest is recognised."""
        store = CheckpointStore(folder)
        newest = store.newest()
        assert newest is not None, f"nothing whole is left: {sorted(folder.iterdir())}"
        step = read_checkpoint(newest).manifest.step
        assert equals(newest, self.states[step]), f"{newest} holds other numbers than were saved"
        known = {store.path(step) for step in store.steps()} | {*scratch_folders(folder)}
        strange = {*folder.iterdir()} - known
        assert not strange, f"not recognised: {strange}"
        for scratch in scratch_folders(folder):
            assert step < 3 or not scratch.name.startswith(".tmp-step_00000003"), scratch
        return f"step {step}"


class Merges:
    """The two kinds of merge_checkpoint.py: the source is there, the target is to appear.

    Args:
        model: Whose tensors.
        folder: Where the sources are made.
    """

    def __init__(self, model: ModelConfig, folder: Path) -> None:
        saves = Saves(model)
        self.state = saves.states[1]
        saves.first_of_ranks(folder / "run")
        self.slices = folder / "run" / "step_00000001"
        self.released = folder / "released"
        export_released(
            open_source(self.slices), self.released, dp=8, mp=model.num_heads, limits=Limits(progress=False)
        )
        self.model = folder / "model.yaml"
        self.model.write_text(json.dumps(to_mapping(model)))

    def works(self) -> dict[str, Work]:
        """Both; they only read their sources, which stay where they are."""
        weights = {"model": self.state["model"]}
        return {"merge": self._work(self.slices, self.state), "import": self._work(self.released, weights)}

    def _work(self, source: Path, state: State) -> Work:
        words, before = ["--quiet", "--model", str(self.model)], contents(source)

        def run(folder: Path) -> None:
            merge_checkpoint.main([str(source), str(folder / "merged"), *words])

        def standing(folder: Path) -> str:
            assert contents(source) == before, "the source was changed"
            if not (folder / "merged").exists():
                return "nothing yet"
            read_checkpoint(folder / "merged")
            assert equals(folder / "merged", state), "merged into other numbers"
            return "merged" if [*folder.iterdir()] == [folder / "merged"] else "merged, not yet tidied"

        return Work(lambda folder: None, run, standing, "merged", repeats=False)


def survive(
    work: Work, moments: int, operations: int | None, folder: Path, draw: random.Random
) -> dict[str, object]:
    """Kills one kind of work again and again.

    Args:
        work: What to kill.
        moments: Number of kills at random moments.
        operations: Number of kills at operations, drawn from all; None kills at each.
        folder: To work in.
        draw: Gives the moments.

    Returns:
        How often, and what stood afterwards.
    """
    before = folder / "before"
    before.mkdir()
    work.prepare(before)
    began = time.perf_counter()
    (copy := folder / "trial").mkdir()
    work.prepare(copy)
    began = time.perf_counter()
    _, there = forked(lambda: work.run(copy))
    duration = time.perf_counter() - began
    shutil.rmtree(copy)
    stood = Counter()
    chosen = range(1, there + 1) if operations is None else draw.sample(range(1, there + 1), operations)
    for number in chosen:
        killed = _trial(work, folder, {"fatal": number}, stood)
        # threads take turns as they like, so that a run may have a few operations less
        assert killed or number > there - 8, f"operation {number} of {there} never came"
    randomly = 0
    for _ in range(20 * moments):
        randomly += _trial(work, folder, {"moment": draw.uniform(0.0, duration)}, stood)
        if randomly == moments:
            break
    shutil.rmtree(before)
    return {
        "random_kills": randomly,
        "operation_kills": len(chosen),
        "operations": there,
        "seconds": round(duration, 3),
        "stood": dict(sorted(stood.items())),
    }


def _trial(work: Work, folder: Path, fault: dict, stood: Counter) -> bool:
    """Prepare, run with a fault, look, run again, look; whether the fault came in time."""
    place = folder / "trial"
    shutil.copytree(folder / "before", place)
    killed, _ = forked(lambda: work.run(place), **fault)
    stands = work.standing(place)
    assert killed or stands == work.last, stands
    if killed:
        stood[stands] += 1
    if stands != work.last or work.repeats:
        forked(lambda: work.run(place))
        again = work.standing(place)
        assert again == work.last, f"after a kill {stands}, run again {again}"
    left = [path.name for path in place.iterdir()]
    assert len(left) == 1, f"left over: {left}"
    shutil.rmtree(place)
    return killed


def main() -> None:
    kinds = ("save", "async-save", "save-slices", "merge", "import")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--moments", type=int, default=50, help="random kills of each kind (default: 50)")
    parser.add_argument("--operations", type=int, help="kills at operations of each kind (default: at each)")
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--hidden", type=int, default=256, help="size of the model (default: 256)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="on the disk to use; the system's temporary one by default")
    options = parser.parse_args()
    model = ModelConfig(vocab_size=1000, hidden_size=options.hidden, num_layers=3, num_heads=4, seq_length=64)
    found = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        (sources := Path(folder) / "sources").mkdir()
        works = Saves(model).works()
        if {"merge", "import"} & {*options.kinds}:
            works |= Merges(model, sources).works()
        for kind in options.kinds:
            (place := Path(folder) / kind).mkdir()
            draw, began = random.Random(f"{options.seed} {kind}"), time.perf_counter()
            found[kind] = survive(works[kind], options.moments, options.operations, place, draw)
            seconds = time.perf_counter() - began
            print(f"{kind} ({seconds:.0f} s): {json.dumps(found[kind])}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
