"""PanGu-alpha for Megatron-LM, as its lab published it: mp_rank_XX/model_optim_rng.pt, or our export of it.

Tensors are cut over model-parallel ranks as in Megatron-LM: column-parallel ones by rows of the stored
[out, in], row-parallel ones by columns. The optimizer is left out: Megatron-LM stores it flat, without names.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.errors import CheckpointError, UnclearError
from pangu_alpha.checkpoint.foreign.torch.ports import (
    Port,
    both,
    exported_model,
    port_config,
    port_source,
    tensors_of,
)
from pangu_alpha.checkpoint.foreign.torch.torch_file import (
    TorchTensor,
    flatten,
    is_torch_file,
    read_torch_file,
)
from pangu_alpha.checkpoint.foreign.torch.torch_pickle import Inert
from pangu_alpha.checkpoint.foreign.torch.wrappers import unwrapped
from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.renaming import MOST_PADDING, given_model
from pangu_alpha.checkpoint.sizes import FEED_FORWARD, FIELDS, Statement, layer_count, matrix, stated
from pangu_alpha.checkpoint.tensors import Box, Source, Stored
from pangu_alpha.checkpoint.untrusted import few
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.files.reading import read_text
from pangu_alpha.files.shown import quoted
from pangu_alpha.network.parameters import TIED_TABLE, row_by_length, rows_of

_NORM = ("gamma", "beta")
_SAMPLE = 4096  # numbers of a tensor that suffice to distinguish two saves
_DRIFT = 0.1  # share of the largest number by which copies of one save may differ

PORT = Port(
    outside={
        "word_embedding.table": "embedding.word_embeddings.weight",
        "position_embedding.table": "embedding.position_embeddings.weight",
        "query_embedding.table": "topQueryEmbedding.top_query_embeddings.weight",
        **both("final_norm", "transformer.final_layernorm", _NORM),
    },
    inside={
        **both("attention_norm", "input_layernorm", _NORM),
        **both("attention.query", "attention.query"),
        **both("attention.key", "attention.key"),
        **both("attention.value", "attention.value"),
        **both("attention.output", "attention.dense"),
        **both("feed_forward_norm", "post_attention_layernorm", _NORM),
        **both("feed_forward.up", "mlp.dense_h_to_4h"),
        **both("feed_forward.down", "mlp.dense_4h_to_h"),
    },
    layer="transformer.layers.{}",
    query_layer="transformer.topQueryLayer",
)

# Our name of a size -> its names among the arguments in the file. The query layer is none of num_layers.
_PADDED, _RANKS = "padded_vocab_size", "ranks"
_ARGUMENTS = {
    "hidden_size": ("hidden_size",),
    "num_layers": ("num_layers",),
    "num_heads": ("num_attention_heads",),
    "seq_length": ("max_position_embeddings",),
    FEED_FORWARD: ("ffn_hidden_size",),
    _PADDED: (_PADDED,),
    _RANKS: ("tensor_model_parallel_size", "model_parallel_size"),
}

_TABLE = PORT.name_of(TIED_TABLE)
_QUERIES, _POSITIONS = PORT.outside["query_embedding.table"], PORT.name_of(row_by_length("seq_length"))
# Dimension along which ranks share a tensor, by the end of its name; others are the same on all ranks.
# The same dimensions as in our plans, and the query table as well.
_CUT = {
    PORT.name_of(row): next(place for place, axis in enumerate(row.axes) if axis)
    for row in rows_of(ModelConfig)
    if any(row.axes)
} | {_QUERIES: 0}
_RANK = re.compile(r"mp_rank_(\d{2,4})(_model_states\.pt)?")
_NUMBER = re.compile(r"[0-9]{1,18}")
_INSIDE = "model_optim_rng.pt"
_LATEST = "latest_checkpointed_iteration.txt"
_ROOTS = ("model", "module")  # Megatron-LM's key of the weights, and DeepSpeed's
_PIECES = 40000  # of the released vocabulary; rows of the table beyond them are padding


def recognises(path: Path) -> bool:
    """Whether a path has model-parallel ranks, is a file of torch.save, or has tensors with these names."""
    try:
        if path.is_dir():
            return any(_RANK.fullmatch(entry.name) for entry in _iteration(path).iterdir())
        if path.suffix == ".safetensors":
            return _QUERIES in _bare(tensors_of(path), path)[0]
        return is_torch_file(path)
    except (OSError, ValueError):
        return False


def open_(path: Path, options: OpenOptions) -> Source:
    """Opens a checkpoint of any model-parallel size.

    Args:
        path: A folder with mp_rank_00 ... or one around it (iter_0001000, release), one such file, or a
            safetensors file of our export.
        options: `model` is needed if rows of the table cannot be told from padding, or the number of heads is
            not recorded.

    Raises:
        CheckpointError: A rank is missing or of another save; a file is damaged or names code; or tensors are
            missing (they are listed), extra or of another shape.
        ConfigError: The model given breaks a rule.
    """
    if path.suffix == ".safetensors":
        said, step, form, aside = exported_model(path), 0, "Megatron-style, one safetensors file", []
        tensors, notes = _bare(tensors_of(path), path)
        ranks = [tensors]
        statements = stated(f"the header of {path}", said, {name: (name,) for name in FIELDS})
    else:
        files = _rank_files(path) if path.is_dir() else [path]
        values = [read_torch_file(file) for file in files]
        opened = [_weights(value, file) for value, file in zip(values, files, strict=True)]
        ranks, notes = [tensors for tensors, _ in opened], opened[0][1]
        (_, step), said = _all_say(values, files, path), {}
        statements = [each for pair in zip(values, files, strict=True) for each in _statements(*pair)]
        aside = ["the optimizer's state is left aside"] if "optimizer" in values[0] else []
        form = f"Megatron-style, model-parallel size {len(files)}"
    found, joined = _join(ranks, path)
    rows, padding = _vocabulary(found, said, options, path)
    sizes = _sizes(found, rows, path) | {_RANKS: len(ranks)}
    config, assumed = port_config(sizes, said, statements, options, path)
    if found[_TABLE].shape[0] > config.vocab_size:
        found[_TABLE] = Stored((config.vocab_size, config.hidden_size), found[_TABLE].pieces)
    names = PORT.names(config.num_layers)
    return port_source(path, form, config, names, found, (*notes, *aside, *joined, *padding, *assumed), step)


def _rank_files(path: Path) -> list[Path]:
    """Returns the file of every rank, in order.

    Raises:
        CheckpointError: A rank is missing between others.
    """
    found: dict[int, Path] = {}
    for entry in _iteration(path).iterdir():
        match = _RANK.fullmatch(entry.name)
        file = entry / _INSIDE if entry.is_dir() else entry
        if match and file.exists() and entry.is_dir() == (match[2] is None):
            found[int(match[1])] = file
    if missing := sorted(set(range(max(found, default=0) + 1)) - set(found)):
        listed = ", ".join(f"mp_rank_{rank:02d}" for rank in missing)
        raise CheckpointError(f"{path}: missing: {listed}")
    return [found[rank] for rank in sorted(found)]


def _iteration(path: Path) -> Path:
    """Returns the folder of the iteration that latest_checkpointed_iteration.txt names, if there is one."""
    if (path / _LATEST).is_file():
        word = read_text(path / _LATEST, most=1000).strip()
        name = f"iter_{int(word):07d}" if _NUMBER.fullmatch(word) else word
        below = Path(name).name == name and name != ".." and "\0" not in name
        return path / name if below and (path / name).is_dir() else path
    return path


def _weights(value: Any, file: Path) -> tuple[dict[str, Stored], list[str]]:
    """Returns the language model's tensors of one rank's file, without prefixes of their names; and notes."""
    root = value
    for key in (*_ROOTS, "language_model"):
        root = root.get(key, root) if isinstance(root, dict) else root
    tensors = {name.removeprefix("language_model."): each for name, each in flatten(root).items()}
    label = file.parent.name if file.name == _INSIDE else file.name
    stored = {name: each.stored(label) for name, each in tensors.items() if isinstance(each, TorchTensor)}
    found, notes = _bare(stored, file)
    if _QUERIES not in found:
        raise CheckpointError(
            f"{file}: not PanGu-alpha for Megatron-LM: no {PORT.outside['query_embedding.table']}; it has "
            f"{few(found, 3) or 'no tensors'}"
        )
    return found, notes


def _bare(found: Mapping[str, Stored], where: Path) -> tuple[dict[str, Stored], list[str]]:
    """Returns tensors by their names without a known prefix; and notes."""
    try:
        tensors, notes = unwrapped(found, [_QUERIES], ["language_model."])
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from error
    return tensors, [*notes]


def _statements(value: Any, file: Path) -> list[Statement]:
    """Returns the sizes that the program's arguments in a rank's file state."""
    arguments = value.get("args") if isinstance(value, dict) else None
    if not isinstance(arguments, Inert) or not isinstance(arguments.state, dict):
        return []
    found = stated(f"args in {file}", arguments.state, _ARGUMENTS)
    for statement in found:
        if "num_layers" in statement.sizes:
            statement.sizes["num_layers"] += 1
            statement.names["num_layers"] = "num_layers with the query layer"
    return found


def _said(value: Any) -> tuple[dict[str, Any], int]:
    """Returns the number of heads and the iteration that a rank's file states."""
    arguments = value.get("args") if isinstance(value, dict) else None
    state = arguments.state if isinstance(arguments, Inert) and isinstance(arguments.state, dict) else {}
    heads, step = state.get("num_attention_heads"), value.get("iteration", 0)
    known = type(step) is int and 0 <= step < 1 << 63
    return ({"num_heads": heads} if isinstance(heads, int) else {}), step if known else 0


def _all_say(values: Sequence[Any], files: Sequence[Path], where: Path) -> tuple[dict[str, Any], int]:
    """Returns the number of heads and the iteration, which all ranks must state alike.

    Raises:
        CheckpointError: A rank differs from rank 0.
    """
    first, *others = map(_said, values)
    for file, said in zip(files[1:], others, strict=True):
        if said[1] != first[1] or (said[0] and first[0] and said[0] != first[0]):
            raise CheckpointError(
                f"{where}: ranks of different saves: {file} is of {_words(*said)}, {files[0]} of "
                f"{_words(*first)}; give the ranks of one save"
            )
    return first


def _words(said: Mapping[str, Any], step: int) -> str:
    return ", ".join([f"iteration {step}", *(f"{quoted(count)} heads" for count in said.values())])


def _join(ranks: Sequence[Mapping[str, Stored]], where: Path) -> tuple[dict[str, Stored], tuple[str, ...]]:
    """Joins every tensor from the slices of all ranks; returns them and notes for the user.

    Raises:
        CheckpointError: The ranks hold different tensors, or differ in one that all of them hold whole.
    """
    for number, rank in enumerate(ranks):
        if unlike := sorted(set(rank) ^ set(ranks[0])):
            raise CheckpointError(
                f"{where}: rank {number} and rank 0 differ in what they hold: {few(unlike, 3)}"
            )
    positions = ranks[0].get(_POSITIONS)
    found: dict[str, Stored] = {}
    apart, problems = 0.0, []
    for name in ranks[0]:
        axis = next((axis for end, axis in _CUT.items() if name.endswith(end)), None)
        if name == _QUERIES and positions is not None:
            # Cut in some versions of the port, whole in others; it has as many rows as the position table.
            axis = axis if ranks[0][name].shape != positions.shape else None
        slices = [rank[name] for rank in ranks]
        if (axis or 0) >= len(slices[0].shape):
            file = slices[0].pieces[0].file
            raise CheckpointError(f"{file}: {name} is {list(slices[0].shape)}: it has too few dimensions")
        if len(shapes := {each.shape for each in slices}) > 1:
            raise CheckpointError(f"{where}: {name}: its slices differ in shape: {sorted(shapes)}")
        if axis is None and len(ranks) > 1:
            distance, other = _distance(slices, name)
            apart = max(apart, distance)
            if distance > _DRIFT:
                file = slices[other].pieces[0].file
                problems.append(f"{file}: its {name} is not rank 0's: of another save or model?")
        found[name] = slices[0] if axis is None or len(ranks) == 1 else _concatenate(slices, axis)
    if problems:
        raise CheckpointError("\n  - ".join([f"{where}: ranks that do not belong together:", *problems]))
    if len(ranks) == 1:
        return found, ()
    drift = f"; others differ by up to {apart:.1g} of the largest number" if apart else ""
    return found, (f"tensors that all ranks hold are read from rank 0{drift}",)


def _distance(copies: Sequence[Stored], name: str) -> tuple[float, int]:
    """Returns the largest difference of the ranks' copies from rank 0's, and the rank that has it.

    The difference is a share of the copy's largest number; only the first rows are compared. Megatron-LM
    updates such tensors on every rank separately, so that they may drift apart by rounding.
    """
    shape = copies[0].shape
    rows = max(1, min(shape[0], _SAMPLE // math.prod(shape[1:])))
    box = Box((0,) * len(shape), (rows, *shape[1:]))
    first, *others = (read_box(each, box, np.float32, verify=False, name=name) for each in copies)
    largest = np.abs(first).max() or np.float32(1e-30)
    return max((float(np.abs(other - first).max() / largest), rank) for rank, other in enumerate(others, 1))


def _concatenate(slices: Sequence[Stored], axis: int) -> Stored:
    shape, pieces = slices[0].shape, []
    for number, each in enumerate(slices):
        begin = tuple(number * size if at == axis else 0 for at, size in enumerate(shape))
        pieces += [dataclasses.replace(piece, box=Box(begin, shape)) for piece in each.pieces]
    full = tuple(size * len(slices) if at == axis else size for at, size in enumerate(shape))
    return Stored(full, tuple(pieces))


def _vocabulary(
    found: Mapping[str, Stored], said: Mapping[str, Any], options: OpenOptions, where: Path
) -> tuple[int, tuple[str, ...]]:
    """Returns how many rows of the table are pieces of the vocabulary, and a note if that is assumed."""
    rows = matrix(found, _TABLE, where)[0]
    if "vocab_size" in said:  # stated by our own export, which has no padding
        return rows, ()
    if options.model is not None:
        vocabulary = given_model(options.model).vocab_size
        return vocabulary if rows - vocabulary < MOST_PADDING else rows, ()
    if _PIECES <= rows <= _PIECES + MOST_PADDING:
        padding = rows - _PIECES
        return _PIECES, (
            f"{padding} rows of the table beyond {_PIECES} left aside: padding",
        ) if padding else ()
    raise UnclearError(
        f"{where}: its table has {rows} rows, of which any number may be padding; name the model with --model"
    )


def _sizes(found: Mapping[str, Stored], rows: int, where: Path) -> dict[str, int]:
    return {
        "vocab_size": rows,
        _PADDED: found[_TABLE].shape[0],
        "hidden_size": matrix(found, _TABLE, where)[1],
        "seq_length": matrix(found, _POSITIONS, where)[0],
        "num_layers": layer_count(found, PORT.layer.removesuffix("{}"), where) + 1,
    }
