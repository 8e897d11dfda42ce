"""A run's checkpoints: where the run begins, what its ranks save, and that all ranks agree on both.

Knows files and configurations; the engine has the numbers, and the loop has the place in the run.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.frozen import frozen_of
from pangu_alpha.checkpoint.native.distributed import (
    LocalParts,
    SharedParts,
    agree_on_attempt,
    check_shared,
    open_part,
)
from pangu_alpha.checkpoint.native.store import CheckpointStore, Group, is_foreign, resolve_resume
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.open import open_source, other_network
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.tensors import Box, Source
from pangu_alpha.cluster.tables.problem import ranges
from pangu_alpha.cluster.world_check import RanksDifferError
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.config.schema import ConfigError, to_mapping
from pangu_alpha.data.position import Position, kept_position
from pangu_alpha.files.shown import quoted
from pangu_alpha.parallel.layout import layouts, slices_of_rank
from pangu_alpha.training.guard import Guard
from pangu_alpha.training.hooks.hook import Hook, restore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """What a run begins from.

    Args:
        source: The checkpoint.
        resumed: Whether the run continues; otherwise it starts anew with the checkpoint's weights.
        verified: Whether every byte has just been compared with its checksum.
    """

    source: Source
    resumed: bool
    verified: bool


class RunCheckpoints:
    """The checkpoints of one run, as seen by one of its ranks.

    Args:
        world: All ranks of the run.
        partitioned: Whether each rank holds slices; otherwise every rank holds everything, and rank 0 saves.
        initial_model: See Objective.initial_model; None is the run's own network.
        restarted: Whether an earlier attempt of this start may have saved. If so, the run's own checkpoints
            take precedence over the one that `run.resume` names.

    Raises:
        CheckpointError: The ranks do not share the storage, although the configuration says so.
    """

    def __init__(
        self,
        config: TrainConfig,
        world: Group,
        partitioned: bool,
        restarted: bool = False,
        initial_model: Any = None,
    ) -> None:
        run = config.run
        self._config, self._world = config, world
        self._initial_model = config.model if initial_model is None else initial_model
        self._wishes = ("auto", run.resume) if restarted and run.resume != "auto" else (run.resume,)
        kept = run.checkpoint
        self.store = CheckpointStore(Path(run.output) / "checkpoints", kept.keep_last, kept.keep_every)
        self.local = kept.storage == "local"
        self.saves = partitioned or world.rank == 0
        self._boxes = boxes_of_rank(config.model, config.parallel, world.rank) if partitioned else None
        self.series: CheckpointStore | SharedParts | LocalParts = self.store
        assert partitioned or not self.local  # see config.run.unrunnable
        if world.size == 1:
            return
        attempt = agree_on_attempt(world)
        if not self.local:
            check_shared(self.store.root, attempt, world)
        if self.local:
            self.series = LocalParts(self.store, world.rank, attempt, to_mapping(config.parallel))
        elif partitioned:
            self.series = SharedParts(self.store, world.rank, world.size, attempt)

    def find(self) -> Start | None:
        """Returns what the run begins from; None if it begins from initial values.

        Raises:
            CheckpointError: The checkpoint is missing, damaged, of an unknown form, or holds no optimizer
                state to continue with.
        """
        run = self._config.run
        path = next(filter(None, map(self._resumed, self._wishes)), None)
        if path is None:
            if run.initial is None:
                return None
            return Start(self._open(Path(run.initial), self._initial_model), resumed=False, verified=False)
        source = open_part(path) if self._is_own_part(path) else self._open(path, self._config.model)
        if not source.tensors.get("optimizer"):
            raise CheckpointError(
                f"{path}: {source.form}: holds no optimizer state, so no run goes on from it; to start a new "
                f"run from its weights, give run.initial={path} (--initial) and no resume"
            )
        return Start(source, resumed=True, verified=not is_foreign(path))

    def settle(self, step: int) -> None:
        """Notes that all ranks have saved a step."""
        if isinstance(self.series, LocalParts):
            self.series.settled = step

    def _resumed(self, resume: str) -> Path | None:
        if isinstance(self.series, LocalParts):
            own = Path(resume) / self.series.part(0).name
            if resume == "auto":
                return self.series.newest(self._world)
            if resume != "never" and self._world.gather(np.array(own.is_dir(), np.int64)).any():
                return self.series.verified(own, self._world)
        return resolve_resume(resume, self.store, self._world)

    def _is_own_part(self, path: Path) -> bool:
        return isinstance(self.series, LocalParts) and path.name == self.series.part(0).name

    def _open(self, path: Path, model: Any) -> Source:
        boxes = self._boxes if model == self._config.model else None  # which are of the run's own network
        source = open_source(path, OpenOptions(model=model), boxes)
        logger.info("%s: %s", source.path, source.form)
        for note in source.notes:
            logger.warning("  %s", note)
        return source


def boxes_of_rank(model: ModelConfig, plan: ParallelPlan, rank: int) -> dict[str, Box]:
    """A rank's boxes in a partitioned run: its part of each parameter that it trains, and of the moments."""
    placed = layouts(model, plan)
    return {name: Box(*held) for name, held in slices_of_rank(placed, plan, rank).items()}


def check_fits(source: Source, model: Any, tokenizer: str | None) -> None:
    """Makes sure that a checkpoint's numbers have the same meaning in this run.

    Args:
        source: The checkpoint; its tensors are compared later, when they are loaded.
        model: Configuration of the network that it must be of.
        tokenizer: Digest of the vocabulary of the run's records; None if they have none.

    Raises:
        ValueError: The checkpoint has another vocabulary or another network.
    """
    theirs = source.manifest.tokenizer
    if theirs is None and tokenizer is not None:
        logger.warning("%s: does not say its vocabulary; it is taken to be the records'", source.path)
    elif theirs != tokenizer:
        raise ValueError(
            f"{source.path}: trained with the tokenizer {theirs}, the records are of {tokenizer}; resume "
            "with records of the same vocab.model"
        )
    own = source.manifest.config.get("model", {})
    if (said := other_network(own, model, "this run")) is not None:
        raise ValueError(f"{source.path}: {said}")


def check_trained(source: Source, frozen: Collection[str]) -> None:
    """Makes sure that a resumed run trains the same parameters as its checkpoint's run.

    Args:
        source: The checkpoint.
        frozen: Names of the parameters that this run does not train.

    Raises:
        ValueError: The trained parameters differ; the message names some.
    """
    before = frozen_of(source.manifest, source.path)
    if before != set(frozen):
        names = ", ".join(sorted(before ^ set(frozen))[:3])
        raise ValueError(
            f"{source.path}: the run that it is of trained other parameters ({names} is frozen in one of "
            "them); to train others from its weights, start a new run by run.initial (--initial)"
        )


def check_same_place(
    world: Group, folder: Path, step: int, samples: int, data: int, start: Start | None
) -> None:
    """Makes sure that all ranks begin at the same place with the same weights and data; all must call it.

    Args:
        world: All ranks.
        folder: The run's output folder, for messages.
        step: Number of steps done.
        samples: Number of samples that all ranks together have read.
        data: Fingerprint of the records and of the place in them.
        start: What this rank begins from.

    Raises:
        RanksDifferError: They do not.
    """
    manifest = start.source.manifest if start else None
    weights = zlib.crc32(f"{manifest.step} {manifest.samples}".encode()) if manifest else 0
    places = world.gather(np.array([step, samples, weights, data], np.int64))
    others = [np.flatnonzero(column != column[0]).tolist() for column in places.T]
    origin = start and start.source.path
    if others[0] or others[1]:
        groups = {each: np.flatnonzero(places[:, 0] == each).tolist() for each in places[:, 0].tolist()}
        steps = ", ".join(f"{_ranks(ranks)} at step {each}" for each, ranks in groups.items())
        raise RanksDifferError(
            f"run.output: {folder}: the ranks resume from different checkpoints ({steps}; this one "
            f"from {origin}); it must lie on storage that all nodes share"
        )
    if others[2]:
        raise RanksDifferError(
            f"run.initial: {_ranks(others[2])} would begin with the weights of another step than rank 0 "
            f"(this one from {origin}); copy one checkpoint to all nodes"
        )
    if others[3]:
        raise RanksDifferError(
            f"data: {_ranks(others[3])} would read other records than rank 0, or from another place; "
            "copy the same records to all nodes"
        )


def _ranks(ranks: list[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {ranges(ranks)}"


def restore_guard(guard: Guard, source: Source) -> None:
    """Continues loss scale, running mean and counters from a checkpoint.

    Raises:
        CheckpointError: The checkpoint's values are impossible.
    """
    manifest = source.manifest
    if "guard" not in manifest.state:
        logger.warning("%s: says nothing of loss scale and skipped updates: both anew", source.path)
        return
    try:
        guard.restore(manifest.state["guard"])
        if guard.steps + guard.skipped > manifest.step:
            raise ValueError(
                f"{guard.steps} updates applied and {guard.skipped} skipped in {manifest.step} steps"
            )
    except ValueError as error:
        raise CheckpointError(
            f"{source.path}: state.guard: {error}; resume from another checkpoint, or start a new run from "
            "its weights by run.initial (--initial)"
        ) from error


def restore_hooks(hooks: Sequence[Hook], source: Source) -> None:
    """Continues the hooks from their states in a checkpoint.

    Raises:
        CheckpointError: A stored state is not valid for its hook.
    """
    kept = source.manifest.state.get("hooks", {})
    try:
        if not isinstance(kept, dict):
            raise ValueError(f"not a mapping: {quoted(kept, 200)}")
        restore(hooks, kept)
    except ValueError as error:
        raise CheckpointError(
            f"{source.path}: state.hooks: {error}; resume from another checkpoint, or start a new run from "
            "its weights by run.initial (--initial)"
        ) from error


def data_position(source: Source) -> Position | None:
    """Returns where a checkpoint's run stood in its sources; None if the checkpoint does not record it.

    Raises:
        CheckpointError: The recorded place is impossible.
    """
    manifest = source.manifest
    for name in ("step", "samples"):
        if not 0 <= getattr(manifest, name) < 2**63:
            raise CheckpointError(
                f"{source.path}: {name} is {getattr(manifest, name)}, which is no place in a run; resume "
                "from another checkpoint, or start a new run from its weights by run.initial (--initial)"
            )
    try:
        return kept_position(manifest.config, manifest.state, manifest.samples)
    except ConfigError as error:
        raise CheckpointError(
            f"{source.path}: what it says of its data does not add up, so no run goes on from it: "
            f"{'; '.join(error.problems)}"
        ) from error
