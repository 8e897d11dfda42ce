"""MindSpore's own checkpoints: slices in rank_N folders with strategy files, and unified safetensors.

Finds the files of one save and the strategy that belongs to them. Their tensors may have official names or
ours.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pangu_alpha.checkpoint.errors import CheckpointError, UnclearError, refuse
from pangu_alpha.checkpoint.foreign.mindspore.assembly import SliceFile, assemble
from pangu_alpha.checkpoint.foreign.mindspore.ckpt_file import FileTensor, read_ckpt
from pangu_alpha.checkpoint.foreign.mindspore.rank_saves import choose_save, rank_folders, saved_files
from pangu_alpha.checkpoint.foreign.mindspore.strategy_file import (
    Strategy,
    read_strategy,
    refuse_strategy,
)
from pangu_alpha.checkpoint.naming import read_names
from pangu_alpha.checkpoint.native.tensor_file import locate_tensors
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.renaming import as_source
from pangu_alpha.checkpoint.tensors import Box, Piece, Source, Stored
from pangu_alpha.checkpoint.untrusted import files_below, read_bytes, read_mapping
from pangu_alpha.files.shown import quoted

NAME_MAP = "param_name_map.json"
HYPER = "hyper_param.safetensors"  # file in which unified_safetensors stores what is not a parameter
STEP = "step_num"  # the name that MindSpore's ModelCheckpoint gives to the optimizer steps done


def recognises(path: Path) -> bool:
    """Whether a path has rank folders with checkpoints, or safetensors with names of PanGu-alpha."""
    if path.is_dir() and any(saved_files(folder) for folder in rank_folders(path).values()):
        return True
    if (path / NAME_MAP).exists():  # certainly this form; opening it reports what is wrong
        return True
    try:
        return any(map(_is_known, _unified_files(path)))
    except (CheckpointError, OSError):
        return False


def open_(path: Path, options: OpenOptions) -> Source:
    """Opens the folder around rank_0, rank_1 ..., or that of unified safetensors.

    Raises:
        CheckpointError: A rank's file is missing, damaged or of another save, or the strategy does not fit;
            all problems of a kind are listed.
        ConfigError: The model that the user names does not exist.
    """
    folders = rank_folders(path)
    if not folders:
        return _open_unified(path, options)
    chosen, notes = choose_save(path, folders)
    files, problems = read_slices(chosen)
    refuse(path, "slices that cannot be read", problems)
    refuse(path, "slices of different saves; give those of one", _other_steps(files))
    strategy, read = find_strategy([path, path / "strategy", *_beside(path)], options)
    form = f"MindSpore's slices of {len(files)} ranks, {read}"
    with blaming(strategy, read):
        found = assemble(files, strategy, options, path)
        refuse(path, "slices of different saves; give those of one", found.strangers)
        notes += found.notes
        if strategy is None:
            notes.append("no strategy file in the folder or beside it: the official rule is assumed")
        return as_source(path, form, found.stored, options, files[min(files)].info, notes)


def _beside(path: Path) -> list[Path]:
    """Returns the folders `strategy` beside a path as it is written, and beside the target of a link."""
    arounds = (Path(os.path.abspath(path)).parent, path.resolve().parent)
    return [around / "strategy" for around in arounds]


@contextmanager
def blaming(strategy: Strategy | None, read: str) -> Iterator[None]:
    """Adds the strategy to errors about slices that do not fit: it may belong to other slices."""
    try:
        yield
    except UnclearError:  # the user must add an option; another placement would not help
        raise
    except CheckpointError as error:
        if strategy is None or isinstance(error, UnclearError):  # for example an unknown number of heads
            raise
        raise CheckpointError(
            f"{error}\n  - the slices were {read}: does it belong to these slices?"
        ) from error


def find_strategy(folders: Iterable[Path], options: OpenOptions) -> tuple[Strategy | None, str]:
    """Finds the strategy that the user names or that lies in one of some folders.

    Returns:
        The strategy, or None; and a description of where it is from.

    Raises:
        CheckpointError: The files are not strategy files, or contradict each other.
    """
    if options.strategy is not None:
        given = Path(options.strategy)
        files = _strategies(given) if given.is_dir() else [given]
        if not files or not files[0].is_file():
            raise CheckpointError(f"{given}: no strategy file there")
    else:
        files = next((found for folder in folders if (found := _strategies(folder))), [])
    if not files:
        return None, "placed by the official rule"
    different = {hashlib.sha256(read_bytes(file)).digest(): file for file in reversed(files)}
    return read_strategy(different.values()), f"placed by the strategy {files[0].name}"


def _strategies(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(one for one in folder.glob("*strategy*") if one.suffix in (".ckpt", ".json"))


def read_slices(paths: Mapping[int, Path]) -> tuple[dict[int, SliceFile], list[str]]:
    """Locates the tensors of every rank's file.

    Returns:
        The files by rank, and a sentence for each that is damaged or of another form.
    """
    files, problems = {}, []
    for rank, path in sorted(paths.items()):
        try:
            files[rank] = _read_slice(rank, path)
        except CheckpointError as error:
            problems.append(str(error))
    return files, problems


def _other_steps(files: Mapping[int, SliceFile]) -> list[str]:
    """Returns the files whose number of epochs or steps differs from most others; not all files have one."""
    problems = []
    for key in ("epoch_num", STEP):
        said = [(file.path, file.info[key]) for file in files.values() if key in file.info]
        usual = Counter(number for _, number in said).most_common(1)
        other = next((path for path, number in said if number == usual[0][0]), None)
        problems += [
            f"{path}: its {key} is {number}, that of {other} {usual[0][0]}"
            for path, number in said
            if number != usual[0][0]
        ]
    return problems


def _read_slice(rank: int, path: Path) -> SliceFile:
    if path.suffix == ".ckpt":
        found = read_ckpt(path)
        return SliceFile(rank, path, found.tensors, found.info)
    return SliceFile(rank, path, _located(path), _step(path))


def _located(path: Path) -> dict[str, FileTensor]:
    return {
        name: FileTensor(one.shape, one.dtype, ((one.offset, one.bytes),))
        for name, one in locate_tensors(path).items()
        if one.shape
    }


def _step(path: Path) -> dict[str, int]:
    """Returns the number of steps in a safetensors file, if it is there."""
    one = locate_tensors(path).get(STEP)
    if one is None or one.shape or one.dtype not in ("int32", "int64"):
        return {}
    with open(path, "rb") as file:
        file.seek(one.offset)
        return {STEP: int.from_bytes(file.read(one.bytes), "little")}


def _unified_files(path: Path) -> list[Path]:
    """Returns the files of a folder of unified safetensors, or the single file given."""
    if path.is_file():
        return [path] if path.suffix == ".safetensors" else []
    if not path.is_dir():
        return []
    indices = [*path.glob(NAME_MAP), *sorted(path.glob("*.safetensors.index.json"))]
    if not indices:
        files = sorted(one for one in path.glob("*.safetensors") if one.name != HYPER)
        return files if len(files) == 1 else []
    content = read_mapping(indices[0])
    names = content.get("weight_map", content)
    if not isinstance(names, dict):
        raise CheckpointError(f"{indices[0]}: damaged, or no map of names to files: it has {quoted(names)}")
    return files_below(path, indices[0], names)


def _is_known(path: Path) -> bool:
    try:
        return bool(read_names(locate_tensors(path), path).ours)
    except (CheckpointError, OSError):
        return False


def _open_unified(path: Path, options: OpenOptions) -> Source:
    stored: dict[str, Stored] = {}
    files = _unified_files(path)
    form = f"MindSpore's unified safetensors, {len(files)} files"
    refuse_strategy(path, form, options)
    for file in files:
        if not file.exists():
            raise CheckpointError(f"{file}: missing, though {NAME_MAP} names it")
        for name, one in _located(file).items():
            if name in stored:
                raise CheckpointError(f"{file}: {name} is in another file, too")
            box = Box((0,) * len(one.shape), one.shape)
            stored[name] = Stored(one.shape, (Piece(box, file, one.extents, one.dtype, label=file.name),))
    info = _step(path / HYPER) if (path / HYPER).exists() else {}
    return as_source(path, form, stored, options, info)
