"""Turns a PanGu-alpha's tensors under any names that naming recognises into a Source under our names.

Derives the network's shape from the tensors and the user's options, and checks the tensors against it. Reads
no tensor's values.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pangu_alpha.checkpoint.errors import CheckpointError, UnclearError
from pangu_alpha.checkpoint.foreign.mindspore.released import released_names
from pangu_alpha.checkpoint.naming import MOMENTS, VOCABULARY, Names, parameter_of, read_names
from pangu_alpha.checkpoint.native.format import Manifest, compare_tensors
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.sizes import shipped_layers
from pangu_alpha.checkpoint.tensors import Source, Stored
from pangu_alpha.checkpoint.untrusted import MOST_LAYERS, few, read_bytes
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.zoo import MODEL_NAMES, load_model_config, load_network
from pangu_alpha.network.parameters import (
    QUERY_LAYER,
    TIED_TABLE,
    parameter_shapes,
    row_by_length,
    row_of,
)

MOST_PADDING = 1 << 10  # rows of an embedding table, which is padded for the devices that share it


def check_axes(names: Names, found: Mapping[str, tuple[Sequence[int], Path]]) -> None:
    """Checks that vectors and matrices have the right number of dimensions before their sizes are used.

    Args:
        found: Shape and file by stored name.

    Raises:
        CheckpointError: A tensor has another number of dimensions; the message names tensor, shape and file.
    """
    for (_, ours), (theirs, _flip) in names.ours.items():
        (shape, file), expected = found[theirs], len(row_of(parameter_of(ours)).sizes)
        if len(shape) != expected:
            raise CheckpointError(
                f"{file}: {theirs} is {list(shape)}: {len(shape)} dimensions, PanGu-alpha's has {expected}"
            )


def find_config(
    names: Names,
    shapes: Mapping[str, Sequence[int]],
    options: OpenOptions,
    where: Path,
    sliced: bool = False,
) -> tuple[ModelConfig, tuple[str, ...]]:
    """Derives the network's shape from the user's options and the tensors.

    Args:
        shapes: Shape by stored name.
        options: The user's options, which go before what the tensors show.
        where: The checkpoint, for errors.
        sliced: Whether the shapes are those of slices.

    Returns:
        The shape, and a sentence for everything that was assumed.

    Raises:
        CheckpointError: Neither the options nor the tensors determine the model.
        ConfigError: The model that the user names does not exist.
    """
    notes = []
    if options.model is not None:
        config = given_model(options.model)
        if config.num_layers > MOST_LAYERS:
            raise UnclearError(
                f"{where}: {names.layers} layers; --model says {config.num_layers:,}, which no network has"
            )
    else:
        config = _guess(names, shapes, where, sliced)
        notes.append(
            f"taken for L {config.num_layers}, H {config.hidden_size}, N {config.num_heads}, "
            f"V {config.vocab_size}, S {config.seq_length} by names and shapes"
        )
        if names.year == 2023:
            config = dataclasses.replace(config, activation="fast_gelu")
            notes.append("names of the 2023 code: its activation, fast_gelu, assumed")
    order = options.norm_order or names.norm_order or config.norm_order
    if options.norm_order is None and names.norm_order not in (None, config.norm_order):
        notes.append(f"norm order {order}, that of the official class with these names")
    if options.norm_order is None and names.norm_order is None and options.model is None:
        notes.append(f"norm order {order} assumed; the names do not tell")
    return dataclasses.replace(config, norm_order=order), tuple(notes)


def given_model(model: str | ModelConfig) -> ModelConfig:
    """Returns a given shape, or that of a shipped model's name or a YAML's path; see `load_network`.

    Raises:
        ConfigError: There is no such model or file, or it breaks a rule.
    """
    return load_network(model).model if isinstance(model, str) else model


def _guess(names: Names, shapes: Mapping[str, Sequence[int]], where: Path, sliced: bool) -> ModelConfig:
    query = names.ours.get(("model", f"{QUERY_LAYER.name}.attention.query.weight"))
    if query is None:
        raise CheckpointError(f"{where}: the query layer's attention.dense1.weight is missing")
    hidden = shapes[query[0]][1]  # this matrix is never cut along its inputs
    known = {config.hidden_size: config for config in map(load_model_config, MODEL_NAMES)}
    if hidden not in known:
        raise UnclearError(
            f"{where}: hidden size {hidden} is none of the shipped models' ({', '.join(map(str, known))}): "
            "its number of heads is unknown; name the model with --model"
        )
    model = known[hidden]
    shipped_layers(names.layers, model, where)
    vocab_size, seq_length = (
        _rows(names, shapes, row_by_length(field).name, getattr(model, field), sliced)
        for field in ("vocab_size", "seq_length")
    )
    return dataclasses.replace(model, num_layers=names.layers, vocab_size=vocab_size, seq_length=seq_length)


def _rows(names: Names, shapes: Mapping[str, Sequence[int]], table: str, expected: int, sliced: bool) -> int:
    """Returns the rows of an embedding table; those of the shipped model if a slice can be a part of it."""
    if ("model", table) not in names.ours:
        return expected
    rows = shapes[names.ours["model", table][0]][0]
    return expected if sliced and expected % rows == 0 else rows


def as_source(
    path: Path,
    form: str,
    stored: Mapping[str, Stored],
    options: OpenOptions,
    info: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Source:
    """Returns tensors under stored names as a Source under our names.

    Args:
        path: What was opened.
        form: Description of the form, to be shown to the user.
        stored: The tensors by stored name.
        info: Numbers stored beside the tensors; "step_num" is the step.
        notes: Sentences to be shown to the user.

    Raises:
        CheckpointError: Tensors are missing, unknown or of another shape than the model's; all are listed.
        ConfigError: The model that the user names does not exist.
    """
    names = read_names(stored, path)
    check_axes(names, {name: (each.shape, each.pieces[0].file) for name, each in stored.items()})
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    config, assumed = find_config(names, shapes, options, path)
    tensors: dict[str, dict[str, Stored]] = {"model": {}, "optimizer": {}}
    for (stem, ours), (theirs, flip) in names.ours.items():
        tensors[stem][ours] = stored[theirs].flipped if flip else stored[theirs]
    table = tensors["model"].get(TIED_TABLE.name)
    if options.model is not None and table is not None and _is_padded(table.shape[0], config.vocab_size):
        tensors = _without_padding(tensors, config.vocab_size)
    left = [f"left aside: {few(names.aside)}"] if names.aside else []
    left += [f"names begin with {names.front}, which was taken off"] if names.front else []
    _check_weights(path, config, names, tensors["model"])
    left += _check_moments(config, tensors)
    step = (info or {}).get("step_num", 0)
    manifest = Manifest(
        step=step if isinstance(step, int) else 0,
        samples=0,
        config={"model": dataclasses.asdict(config)},
        tokenizer=vocabulary_digest(path),
        kind="training" if "optimizer" in tensors else "weights",
    )
    return Source(path, form, manifest, tensors, (*notes, *assumed, *left))


def vocabulary_digest(path: Path) -> str | None:
    """Returns the digest of the vocabulary beside or in a checkpoint, or None if there is none.

    Raises:
        CheckpointError: The vocabulary is a git-LFS pointer.
    """
    file = (path if path.is_dir() else path.parent) / VOCABULARY
    return hashlib.sha256(read_bytes(file)).hexdigest() if file.is_file() else None


def _is_padded(rows: int, vocabulary: int) -> bool:
    """Whether rows beyond the vocabulary may be padding: rows of another vocabulary are never cut off."""
    return vocabulary < rows < vocabulary + MOST_PADDING


def _without_padding(tensors: Mapping[str, Mapping[str, Stored]], rows: int) -> dict[str, dict[str, Stored]]:
    return {
        stem: {
            name: Stored((rows, *tensor.shape[1:]), tensor.pieces)
            if parameter_of(name) == TIED_TABLE.name
            else tensor
            for name, tensor in group.items()
        }
        for stem, group in tensors.items()
    }


def _check_weights(path: Path, config: ModelConfig, names: Names, found: Mapping[str, Stored]) -> None:
    """Compares the weights with the model's; errors use the stored names, otherwise the official ones."""
    official = released_names(config) if names.year is not None else {}
    known = {
        ours: names.ours.get(("model", ours), official.get(ours, (ours, False)))[0]
        for ours in parameter_shapes(config) | dict(found)
    }
    expected = {known[ours]: (shape, None) for ours, shape in parameter_shapes(config).items()}
    compare_tensors(
        expected, {known[ours]: (tensor.shape, None) for ours, tensor in found.items()}, str(path)
    )


def _check_moments(config: ModelConfig, tensors: dict[str, dict[str, Stored]]) -> list[str]:
    """Keeps the moments only if all are present; otherwise returns a note that they are left out."""
    moments = tensors["optimizer"]
    expected = {
        prefix + name: shape for prefix in MOMENTS for name, shape in parameter_shapes(config).items()
    }
    lacking = [
        name for name, shape in expected.items() if name not in moments or moments[name].shape != shape
    ]
    if not lacking:
        return []
    count = len(moments)
    del tensors["optimizer"]
    if not count:
        return []
    return [
        f"optimizer state left aside: {len(lacking)} of {len(expected)} moments missing or of another shape, "
        f"such as {lacking[0]}"
    ]
