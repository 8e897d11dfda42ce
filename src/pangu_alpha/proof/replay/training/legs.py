"""The processes of a replayed training run, from their start to the exit code of each; what they noted.

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
_POLL = 0.1  # seconds
_GRACE = 5.0  # seconds that ranks get to end by themselves after one was killed; on CPU they wait for it


@dataclass(frozen=True)
class Interruption:
    """A signal to one rank in the midst of its run.

    Args:
        rank: Which; it waits for the signal after these steps, while the others go on.
        number: The signal.
        after: Steps of the run, those of earlier legs included.
    """

    rank: int
    number: signal.Signals
    after: int

    @property
    def kills(self) -> bool:
        """Whether the rank gets no time to save."""
        return self.number == signal.SIGKILL

    def saved(self, every: int) -> int:
        """Steps in the last checkpoint before it, of a run that saves after every so many; 0 for none."""
        return self.after // every * every


@dataclass(frozen=True)
class Ended:
    """How a leg ended.

    Args:
        codes: Exit code of each rank, negative for the signal that killed it; None for one that had to be
            ended after another had died.
        seconds: From start to end.
    """

    codes: tuple[int | None, ...]
    seconds: float


@dataclass(frozen=True)
class Trace:
    """What one process noted of its steps.

    Args:
        folder: Where.
        steps: For each step: step (from 0), loss, norm, applied, scale.
    """

    folder: Path
    steps: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, folder: Path) -> Trace:
        """Reads a process's folder; a last line that a kill has cut does not count."""
        path = folder / STEPS
        lines = [entry for _, entry in read_json_lines(path, numbers_only=False)] if path.exists() else []
        return cls(folder, tuple(each for each in lines if isinstance(each, dict)))

    @property
    def first(self) -> int:
        """Steps done before."""
        return self.steps[0]["step"]

    def state(self, steps: int) -> dict[str, np.ndarray]:
        """Parameters and moments after so many steps."""
        return dict(np.load(state_file(self.folder, steps)))


def run_one(config: TrainConfig, folder: Path, timeout: float) -> None:
    """Trains on one process, unless an earlier call has done the same.

    Args:
        config: Of the run; its output folder is made anew.
        folder: Gets what it notes.
        timeout: Seconds after which it is ended.

    Raises:
        ReplayError: It died, or took too long.
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
    """Trains on a process for each rank of a plan.

    Args:
        config: Of the run and the plan.
        graphs: Of all ranks, see ReplayedEngine.
        folder: Gets rank_NNNNN/ with what each notes.
        interruption: What happens on the way.
        patches: "module:function" that a rank calls first, by rank; negative controls use it.
        timeout: Seconds after which the processes are ended.
        tick: Called with the steps of the run that are done.

    Raises:
        ReplayError: A rank died without being told to, or the run took too long.
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
        folder: May be missing or empty.
        mark: A file that is there if a replay has made the folder.

    Raises:
        ReplayError: It holds something else.
    """
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise ReplayError(
            f"{folder}: not of an earlier replay (no {mark}); give another --output, or move it away"
        )
    if folder.exists():
        shutil.rmtree(folder)


def made_by() -> dict[str, object]:
    """What must be the same for an earlier replay's graphs and numbers to be used again."""
    return {"source": source_digest(), "versions": versions()}


def _request_text(
    config: TrainConfig, graphs: Path | None = None, patch: str | None = None, waits: int | None = None
) -> str:
    """What a process is to do."""
    values = {"config": to_mapping(config), "graphs": graphs and str(graphs), "patch": patch, "waits": waits}
    return json.dumps(values | made_by())


def _begin(folder: Path, request: str) -> None:
    """Makes a process's folder anew."""
    remove_earlier(folder, folder / REQUEST)
    folder.mkdir(parents=True)
    write_text(folder / REQUEST, request)


def _last_saved(config: TrainConfig, interruption: Interruption | None) -> Path | None:
    """The checkpoint that must lie on the disk before a rank is killed, for the run to go on from it."""
    if interruption is None or not interruption.kills:
        return None
    step = interruption.saved(config.run.checkpoint.every)
    return CheckpointStore(Path(config.run.output) / "checkpoints").path(step) if step else None


class _Watch:
    """Looks after the ranks of a leg until all have ended."""

    def __init__(
        self, ranks: Ranks, folders: Sequence[Path], interruption: Interruption | None, deadline: float
    ) -> None:
        self._processes, self._folders = ranks.processes, folders
        self._interruption, self._deadline = interruption, deadline
        self.awaited: Path | None = None  # that must be there before the signal
        self._sent = False
        self._died: float | None = None  # when a rank was killed

    def wait(self, tick: Callable[[int], object]) -> tuple[int | None, ...]:
        """The exit codes, see Ended."""
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
        """The codes of all, once all have ended or what is left of them has had its time."""
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
        """What a rank ended with; what it says itself counts before MindSpore has left the cluster."""
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
        """Steps of the run that a rank has done."""
        trace = Trace.read(self._folders[rank])
        return trace.steps[-1]["step"] + 1 if trace.steps else 0
