"""Puts the slices of all ranks together: which part of which tensor each of them is.

A strategy file says how tensors are cut. Without one, slices are placed by the official code's rule, which
their shapes confirm.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pangu_alpha.checkpoint.errors import CheckpointError, UnclearError, refuse
from pangu_alpha.checkpoint.foreign.mindspore.ckpt_file import FileTensor
from pangu_alpha.checkpoint.foreign.mindspore.rank_saves import ranges
from pangu_alpha.checkpoint.foreign.mindspore.replicas import Replica, strangers
from pangu_alpha.checkpoint.foreign.mindspore.strategy_file import Cut, Strategy
from pangu_alpha.checkpoint.naming import Names, parameter_of, read_names
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.renaming import check_axes, find_config
from pangu_alpha.checkpoint.tensors import Box, Piece, Stored
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.network.parameters import QUERY_LAYER, parameter_table, row_of

_SAMPLES = 8  # tensors of a stage whose copies are compared between ranks
_FEED_FORWARD = tuple(f"{QUERY_LAYER.name}.feed_forward.{name}.weight" for name in ("up", "down"))


@dataclass(frozen=True)
class SliceFile:
    """The file that one rank saved.

    Args:
        tensors: The rank's slices by name.
        info: Numbers stored beside the slices.
    """

    rank: int
    path: Path
    tensors: Mapping[str, FileTensor]
    info: Mapping[str, Any] = field(default_factory=dict)

    def replica(self, name: str) -> Replica:
        """Returns the rank's slice of a tensor."""
        return Replica(self.path, self.tensors[name].extents)

    @property
    def kinds(self) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        """Returns name, shape and type of every slice."""
        return tuple((name, one.shape, one.dtype) for name, one in sorted(self.tensors.items()))


class Assembled(NamedTuple):
    """The tensors that the slices of all ranks make up.

    Args:
        stored: The tensors by stored name.
        notes: Sentences for the user.
        strangers: A sentence for every file that seems to be of another save than the others.
    """

    stored: dict[str, Stored]
    notes: list[str]
    strangers: list[str]


def assemble(
    files: Mapping[int, SliceFile], strategy: Strategy | None, options: OpenOptions, where: Path
) -> Assembled:
    """Assembles the tensors from the slices of all ranks.

    Args:
        files: By rank.
        strategy: How parameters are cut; None for the official code's rule.
        where: The checkpoint, for errors.

    Raises:
        CheckpointError: Ranks are missing, slices do not fit together, or the strategy knows none of their
            names; all are named.
    """
    names = read_names({name: None for file in files.values() for name in file.tensors}, where)
    known = [theirs for theirs, _ in names.ours.values()]
    notes = []
    if strategy is None:
        strategy = _by_rule(names, files, options, where)
    else:
        notes += _unmentioned(strategy, known, where)
    devices = next(cut.devices for cuts in strategy.values() for cut in cuts.values())
    _check_ranks(files, devices * len(strategy), where)
    stored: dict[str, Stored] = {}
    copies: dict[str, int] = {}
    stages = {
        stage: [files[rank] for rank in range(stage * devices, (stage + 1) * devices)]
        for stage in sorted(strategy)
    }
    for stage, own in stages.items():
        cuts = strategy[stage]
        for name, tensor in _assemble_stage(own, cuts, devices, where).items():
            if name in stored and name in cuts:
                copies[name] = stage
            stored.setdefault(name, tensor)
    if copies:
        notes.append(f"on several stages, read from the first: {', '.join(copies)}")
    return Assembled(stored, notes, strangers(_replicas(stages, strategy, set(known))))


def _unmentioned(strategy: Strategy, known: Sequence[str], where: Path) -> list[str]:
    """Returns a note about weights and moments that the strategy does not contain.

    Raises:
        CheckpointError: The strategy contains none of them.
    """
    mentioned = {name for cuts in strategy.values() for name in cuts}
    lacking = [name for name in known if name not in mentioned]
    if known and len(lacking) == len(known):
        raise CheckpointError(
            f"{where}: the strategy says of none of its tensors how it is cut: it names {min(mentioned)}, "
            f"they are named like {known[0]}; is it the strategy of another run, or of other names?"
        )
    if not lacking:
        return []
    return [f"taken for whole, the strategy does not name them: {len(lacking)} tensors such as {lacking[0]}"]


def _replicas(
    stages: Mapping[int, Sequence[SliceFile]], strategy: Strategy, known: Collection[str]
) -> Iterator[tuple[str, list[Replica]]]:
    """Yields, for some tensors, the copies of each slice that several ranks hold."""
    held = {stage: {name for file in own for name in file.tensors} for stage, own in stages.items()}
    cuts = {
        stage: {name: cut for name, cut in strategy[stage].items() if name in known and name in held[stage]}
        for stage in stages
    }
    for name in _samples(cuts):
        same: dict[tuple[int, ...], list[Replica]] = defaultdict(list)
        for stage in (stage for stage in stages if name in cuts[stage]):
            for file in stages[stage]:
                if name in file.tensors:
                    boxes = _boxes(cuts[stage][name], file.tensors[name].shape)
                    box = boxes[file.rank % len(boxes)]
                    same[box.start + box.shape].append(file.replica(name))
        yield from ((name, each) for each in same.values() if len(each) > 1)


def _samples(strategy: Strategy) -> dict[str, None]:
    """Returns some of each stage's least cut tensors, which most ranks share, and all of several stages."""
    chosen: dict[str, None] = {}
    stages = Counter(name for cuts in strategy.values() for name in cuts)
    for cuts in strategy.values():
        least = min((cut.slices for cut in cuts.values()), default=0)
        alike = [name for name, cut in cuts.items() if cut.slices == least]
        chosen |= dict.fromkeys(alike[:: -(-len(alike) // _SAMPLES) or 1])
    return chosen | dict.fromkeys(name for name, count in stages.items() if count > 1)


def _check_ranks(files: Mapping[int, SliceFile], count: int, where: Path) -> None:
    missing = [rank for rank in range(count) if rank not in files]
    if missing:
        raise CheckpointError(
            f"{where}: {len(missing)} of {count} slices are missing: {ranges(missing)}; fetch them again"
        )
    if extra := [rank for rank in files if rank >= count]:
        raise CheckpointError(
            f"{where}: {len(files)} slices, but the strategy is of {count} devices; {ranges(extra)} are too "
            "many: another strategy file?"
        )


def _assemble_stage(
    files: Sequence[SliceFile], cuts: Mapping[str, Cut], devices: int, where: Path
) -> dict[str, Stored]:
    stored, problems = {}, []
    names = dict.fromkeys(name for file in files for name in file.tensors)
    for name in names:
        holders = [file for file in files if name in file.tensors]
        usual = Counter(_kind(file, name) for file in holders).most_common(1)[0][0]
        odd = [file for file in holders if _kind(file, name) != usual]
        problems += [
            f"{one.path}: {name} is {_words(_kind(one, name))}, elsewhere {_words(usual)}" for one in odd
        ]
        cut = cuts.get(name) or Cut((devices,), ((),) * len(usual[0]))
        if len(cut.axes) != len(usual[0]):
            problems.append(
                f"{holders[0].path}: {name} is {list(usual[0])}, its strategy of {len(cut.axes)} axes"
            )
        elif not odd:
            stored[name], lacking = _pieces(name, holders, cut, usual[0])
            problems += lacking
    refuse(where, "slices that do not fit together", problems)
    return stored


def _kind(file: SliceFile, name: str) -> tuple[tuple[int, ...], str]:
    return file.tensors[name].shape, file.tensors[name].dtype


def _words(kind: tuple[tuple[int, ...], str]) -> str:
    return f"{kind[1]} {list(kind[0])}"


@cache
def _boxes(cut: Cut, shape: tuple[int, ...]) -> list[Box]:
    return [cut.box(place, shape) for place in range(cut.devices)]


def _pieces(
    name: str, holders: Sequence[SliceFile], cut: Cut, shape: tuple[int, ...]
) -> tuple[Stored, list[str]]:
    """Returns a tensor with each slice from the lowest rank that holds it, and what is wrong with them."""
    boxes, found = _boxes(cut, shape), {}
    for file in holders:
        box = boxes[file.rank % cut.devices]
        if box.start not in found:
            one = file.tensors[name]
            label = f"rank {file.rank}"
            found[box.start] = Piece(box, file.path, one.extents, one.dtype, label=label)
            if len(found) == cut.slices:
                break
    lacking = [place for place, box in enumerate(boxes) if box.start not in found]
    problems = [f"{name}: no file has the slices of the stage's ranks {ranges(lacking)}"] if lacking else []
    return Stored(cut.whole(shape), tuple(found.values())), problems


def _by_rule(names: Names, files: Mapping[int, SliceFile], options: OpenOptions, where: Path) -> Strategy:
    """Returns the official code's cuts, whose sizes follow from the slices' shapes."""
    found = {name: (one.shape, file.path) for file in files.values() for name, one in file.tensors.items()}
    check_axes(names, found)
    shapes = {name: shape for name, (shape, _) in found.items()}
    config, _ = find_config(names, shapes, options, where, sliced=True)
    tp = _tensor_parallel(names, config, shapes, where)
    cuts = _rule_cuts(names, config, shapes, tp, where)
    least = max(cut.slices for cut in cuts.values())
    size = _stage_size(files, least, where)
    grid = (size // tp, tp)
    sized = {name: Cut(grid, cut.axes, cut.optimizer_parts) for name, cut in cuts.items()}
    return dict.fromkeys(range(-(-(max(files) + 1) // size)), sized)


def _tensor_parallel(
    names: Names, config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], where: Path
) -> int:
    """Returns the number of devices that share a product, from the columns of the feed-forward matrix."""
    for ours in _FEED_FORWARD:
        theirs, flip = names.ours.get(("model", ours), ("", False))
        if theirs and row_of(ours).axes[:: -1 if flip else 1][1] == "tp":
            columns = shapes[theirs][1]
            if columns and config.ffn_size % columns == 0:
                return config.ffn_size // columns
            raise CheckpointError(f"{where}: {theirs} has {columns} columns, no part of {config.ffn_size}")
    raise CheckpointError(f"{where}: the query layer's feed-forward matrices are missing")


def _rule_cuts(
    names: Names, config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], tp: int, where: Path
) -> dict[str, Cut]:
    table, problems = parameter_table(config), []
    cuts: dict[str, Cut] = {}
    for (_, ours), (theirs, flip) in names.ours.items():
        spec = table.get(parameter_of(ours))
        step = -1 if flip else 1
        shape, whole = shapes[theirs], spec.shape[::step] if spec else ()
        if spec is None or len(whole) != len(shape) or 0 in shape:
            problems.append(f"{theirs} is {list(shape)}, the model's {list(whole)}")
            continue
        parts = [tp if axis == "tp" else 1 for axis in spec.axes[::step]]
        if spec.tied and shape[0] < whole[0]:  # its rows may be cut over tp, and padded for that
            parts[0] = tp
            whole = (-(-whole[0] // tp) * tp, *whole[1:])
        sharded = max(1, whole[0] // (shape[0] * parts[0]))
        cut = Cut((sharded, tp), tuple((0,) if n > 1 else () for n in parts), sharded)
        if cut.whole(shape) != tuple(whole) and not (spec.tied and shape[0] > whole[0]):
            problems.append(f"{theirs}: slices {list(shape)} are no cut of {list(whole)} over {tp} devices")
        cuts[theirs] = cut
    refuse(where, "the official rule does not explain the slices, give the file with --strategy", problems)
    return cuts


def _stage_size(files: Mapping[int, SliceFile], least: int, where: Path) -> int:
    """Returns the number of devices of a stage: consecutive ranks that hold tensors of the same names."""
    names = {rank: frozenset(file.tensors) for rank, file in files.items()}
    for size in range(-(-(max(files) + 1) // least) * least, 0, -least):
        groups: dict[int, set[frozenset[str]]] = {}
        for rank, held in names.items():
            groups.setdefault(rank // size, set()).add(held)
        if all(len(group) == 1 for group in groups.values()):
            return size
    raise UnclearError(
        f"{where}: ranks of one stage hold different tensors; give the strategy file with --strategy"
    )
