"""Starts the processes of a replayed training run, waits for their exit codes, and reads their records.

A leg is a run under one plan, until its last step or until it is interrupted.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.native.store import CheckpointStore
from pangu_alpha.cluster.process_identity import source_digest, versions
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.files.reading import read_json_lines
from pangu_alpha.files.writing import write_text
from pangu_alpha.proof.replay.processes import Ranks, ReplayError, last_lines, run_child
from pangu_alpha.proof.replay.training.files import EXIT_CODE, REQUEST, STEPS, WAITS, state_file

_WORKER = "pangu_alpha.proof.replay.training.worker"
_POLL = 0.1  # seconds between looks at the ranks
_GRACE = 5.0  # seconds for ranks to end by themselves after one was killed; on CPU they may wait for it


@dataclass(frozen=True)
class Interruption:
    """A signal to one rank during its run.

    Args:
        rank: The rank. It waits for the signal after these steps, while the others continue.
        after: Number of steps of the run, those of earlier legs included.
    """

    rank: int
    number: signal.Signals
    after: int

    @property
    def kills(self) -> bool:
        """Whether the signal leaves the rank no time to save."""
        return self.number == signal.SIGKILL

    def saved(self, every: int) -> int:
        """Steps in the last checkpoint before it, if the run saves after every `every` steps; 0 for none."""
        return self.after // every * every


@dataclass(frozen=True)
class Ended:
    """How a leg ended.

    Args:
        codes: Exit code of each rank, negative for the signal that killed it; None for a rank that had to be
            ended after another one had died.
        seconds: Seconds from start to end.
    """

    codes: tuple[int | None, ...]
    seconds: float


@dataclass(frozen=True)
class Trace:
    """What one process recorded of its steps.

    Args:
        steps: For each step: step (from 0), loss, norm, applied, scale.
    """

    folder: Path
    steps: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, folder: Path) -> Trace:
        """Reads a process's folder; ignores a last line that a kill has cut off."""
        path = folder / STEPS
        lines = [entry for _, entry in read_json_lines(path, numbers_only=False)] if path.exists() else []
        return cls(folder, tuple(each for each in lines if isinstance(each, dict)))

    @property
    def first(self) -> int:
        """Number of steps done before the first recorded one."""
        return self.steps[0]["step"]

    def state(self, steps: int) -> dict[str, np.ndarray]:
        """Parameters and moments after a number of steps."""
        return dict(np.load(state_file(self.folder, steps)))


def run_one(config: TrainConfig, folder: Path, timeout: float) -> None:
    """Trains on one process, unless an earlier call has done the same.

    Args:
        config: The run; its output folder is made anew.
        folder: Folder for the records.
        timeout: Seconds after which the process is ended.

    Raises:
        ReplayError: If it died or took too long.
    """
    asked = folder / REQUEST
    before = asked.read_text("utf-8") if (folder / EXIT_CODE).exists() else None
    output = Path(config.run.output)
    if before == _request_text(config) and output.exists():
        return
    remove_earlier(output, asked)
    _begin(folder, _request_text(config))
    run_child(["one", str(folder)], folder / "run.txt", timeout, _WORKER)


def run_leg(
    config: TrainConfig,
    graphs: Path,
    folder: Path,
    interruption: Interruption | None,
    patches: Mapping[int, str],
    timeout: float,
    tick: Callable[[int], object],
) -> Ended:
    """Trains with one process for each rank of a plan.

    Args:
        graphs: Folder of the graphs of all ranks; see ReplayedEngine.
        folder: Folder that gets rank_NNNNN/ with the records of each rank.
        interruption: A signal to send on the way.
        patches: By rank, a "module:function" that it calls first; for negative controls.
        timeout: Seconds after which the processes are ended.
        tick: Called with the number of steps of the run that are done.

    Raises:
        ReplayError: If a rank died although nobody killed it, or the run took too long.
    """
    number = config.parallel.devices
    folders = [folder / f"rank_{rank:05d}" for rank in range(number)]
    for rank, each in enumerate(folders):
        waits = interruption.after if interruption and interruption.rank == rank else None
        _begin(each, _request_text(config, graphs, patches.get(rank), waits))
    began = time.monotonic()
    with Ranks(_WORKER, folders, folder / "scheduler.txt") as ranks:
        watch = _Watch(ranks, folders, interruption, began + timeout)
        watch.awaited = _last_saved(config, interruption)
        codes = watch.wait(tick)
    return Ended(codes, time.monotonic() - began)


def remove_earlier(folder: Path, mark: Path) -> None:
    """Removes a folder that an earlier replay has left, and no other.

    Args:
        folder: The folder; it may be missing or empty.
        mark: A file that exists if a replay has made the folder.

    Raises:
        ReplayError: If the folder has other contents.
    """
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise ReplayError(
            f"{folder}: not of an earlier replay (no {mark}); give another --output, or move it away"
        )
    if folder.exists():
        shutil.rmtree(folder)


def made_by() -> dict[str, object]:
    """What must be unchanged for an earlier replay's graphs and numbers to be used again."""
    return {"source": source_digest(), "versions": versions()}


def _request_text(
    config: TrainConfig, graphs: Path | None = None, patch: str | None = None, waits: int | None = None
) -> str:
    """The text of a process's request.json."""
    values = {"config": to_mapping(config), "graphs": graphs and str(graphs), "patch": patch, "waits": waits}
    return json.dumps(values | made_by())


def _begin(folder: Path, request: str) -> None:
    """Makes a process's folder anew, with its request."""
    remove_earlier(folder, folder / REQUEST)
    folder.mkdir(parents=True)
    write_text(folder / REQUEST, request)


def _last_saved(config: TrainConfig, interruption: Interruption | None) -> Path | None:
    """The checkpoint that must be complete before a rank is killed, so that the run can resume from it."""
    if interruption is None or not interruption.kills:
        return None
    step = interruption.saved(config.run.checkpoint.every)
    return CheckpointStore(Path(config.run.output) / "checkpoints").path(step) if step else None


class _Watch:
    """Watches the ranks of a leg until all have ended."""

    def __init__(
        self, ranks: Ranks, folders: Sequence[Path], interruption: Interruption | None, deadline: float
    ) -> None:
        self._processes, self._folders = ranks.processes, folders
        self._interruption, self._deadline = interruption, deadline
        self.awaited: Path | None = None  # must exist before the signal is sent
        self._sent = False
        self._died: float | None = None  # when a rank was killed

    def wait(self, tick: Callable[[int], object]) -> tuple[int | None, ...]:
        """Returns the exit codes; see Ended."""
        while (codes := self._codes()) is None:
            tick(self._steps(0))
            self._interrupt()
            if time.monotonic() > self._deadline:
                left = [rank for rank in range(len(self._folders)) if self._code(rank) is None]
                raise ReplayError(f"ranks {left} still run; their output: {self._folders[left[0]]}/run.txt")
            time.sleep(_POLL)
        tick(self._steps(0))
        return codes

    def _codes(self) -> tuple[int | None, ...] | None:
        """The codes of all ranks once all have ended, or once those left after a kill had their time."""
        codes = tuple(self._code(rank) for rank in range(len(self._folders)))
        if self._died is not None:
            over = time.monotonic() - self._died > _GRACE
            return codes if over or None not in codes else None
        for rank, code in enumerate(codes):
            if code is not None and not (self._folders[rank] / EXIT_CODE).exists():
                raise ReplayError(
                    f"rank {rank} ended with code {code}: {last_lines(self._folders[rank] / 'run.txt')}"
                )
        return None if None in codes else codes

    def _code(self, rank: int) -> int | None:
        """A rank's exit code, None while it runs.

        The code that the rank wrote itself is available before MindSpore has left the cluster.
        """
        told = self._folders[rank] / EXIT_CODE
        if told.exists():
            return int(told.read_text("utf-8"))
        return self._processes[rank].poll()

    def _interrupt(self) -> None:
        told = self._interruption
        if told is None or self._sent or not (self._folders[told.rank] / WAITS).exists():
            return
        if self.awaited is not None and not self.awaited.exists():
            return
        self._processes[told.rank].send_signal(told.number)
        self._sent = True
        if told.kills:
            self._processes[told.rank].wait()
            self._died = time.monotonic()
        else:
            (self._folders[told.rank] / WAITS).unlink()

    def _steps(self, rank: int) -> int:
        """Number of steps of the run that a rank has done."""
        trace = Trace.read(self._folders[rank])
        return trace.steps[-1]["step"] + 1 if trace.steps else 0
