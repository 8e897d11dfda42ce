"""Opens a checkpoint of any known form: our own by native.opening, other forms by the modules in READERS.

Opening examines names, shapes and headers. Checksums are compared when the bytes are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from pangu_alpha.checkpoint.errors import CheckpointError, UnclearError
from pangu_alpha.checkpoint.foreign.mindspore import ckpt_file, mindformers_folder, released_folder
from pangu_alpha.checkpoint.foreign.mindspore import slices as mindspore_slices
from pangu_alpha.checkpoint.foreign.mindspore.strategy_file import refuse_strategy
from pangu_alpha.checkpoint.foreign.torch import huggingface, megatron
from pangu_alpha.checkpoint.native.format import MANIFEST, compare_tensors
from pangu_alpha.checkpoint.native.opening import is_ours, open_ours, section_of
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.renaming import given_model
from pangu_alpha.checkpoint.sizes import model_statement, refuse_contradictions, sizes_of_ours
from pangu_alpha.checkpoint.tensors import Box, Source
from pangu_alpha.checkpoint.unknown import unknown_form
from pangu_alpha.checkpoint.untrusted import check_file, few
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.model_families import KEY, PANGU, family_of, not_pangu
from pangu_alpha.files.shown import quoted, shown
from pangu_alpha.network.parameters import parameter_shapes

_FLOATS = ("float16", "bfloat16", "float32", "float64")

_LOOKED_FOR = (
    "a checkpoint or a run of ours; the released slices (filerted_0.ckpt ...); MindSpore's slices with "
    "their strategy file, or unified safetensors; a merged .ckpt; the Hugging Face port; a Megatron-style "
    "checkpoint"
)


class Reader(Protocol):
    """A module that reads one of the other forms."""

    def recognises(self, path: Path) -> bool:
        """Whether a path looks like the form; never raises."""

    def open_(self, path: Path, options: OpenOptions) -> Source:
        """Opens a checkpoint of the form."""


# Asked in this order.
READERS: tuple[Reader, ...] = (
    released_folder, mindspore_slices, mindformers_folder, ckpt_file, huggingface, megatron,
)  # fmt: skip
_PLACED = (released_folder, mindspore_slices)  # readers that use a strategy file


def open_source(
    path: str | Path | Sequence[str | Path],
    options: OpenOptions | None = None,
    boxes: Mapping[str, Box] | None = None,
) -> Source:
    """Opens the checkpoint at a path, whatever its form.

    Args:
        path: A checkpoint; a run's output folder or its `checkpoints`, whose newest complete one is taken; or
            several folders, of nodes that each hold some ranks' parts.
        options: Facts that the checkpoint may lack. An option that repeats a fact it has is accepted.
        boxes: The box of each parameter, and of its moments, that is going to be read; None means everything.
            Of a checkpoint of many ranks only the parts that overlap these boxes are opened: a rank among
            thousands need not open the parts of all others.

    Raises:
        CheckpointError: There is no checkpoint, its form is unknown, or it is damaged, unfinished or
            incomplete; an option contradicts it or does not apply to it; or its tensors are not floating
            point.
        ConfigError: The model that the user names does not exist.
    """
    options = options or OpenOptions()
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]
    for each in paths:
        if not each.exists():
            raise CheckpointError(f"{each}: there is no such file or folder")
        if not each.is_dir():
            check_file(each)
    if len(paths) > 1 or is_ours(paths[0]):
        source = open_ours(paths, boxes)
        _refuse_others(source, options)
        _compare_with_config(source)
    else:
        source = _open_foreign(paths[0], options)
    _refuse_integers(source)
    return replace(source, notes=tuple(shown(note, 2000) for note in source.notes))


def _open_foreign(path: Path, options: OpenOptions) -> Source:
    for reader in READERS:
        if reader.recognises(path):
            for problem in not_pangu(options.model, "the reader of this form of checkpoint"):
                raise UnclearError(f"{path}: {problem}")
            source = reader.open_(path, options)
            if reader not in _PLACED:
                refuse_strategy(path, source.form, options)
            return source
    raise unknown_form(path, _LOOKED_FOR)


def _refuse_others(source: Source, options: OpenOptions) -> None:
    """Checks that the options do not contradict what a checkpoint of our form records.

    Raises:
        CheckpointError: An option contradicts the checkpoint.
        ConfigError: The model given does not exist.
    """
    refuse_strategy(source.path, source.form, options)
    own, order = source.manifest.config.get("model", {}), options.norm_order
    if order is not None and own.get("norm_order", order) != order:
        raise UnclearError(
            f"{source.path}: --norm-order {order}: it says its own order, {own['norm_order']}; leave it out"
        )
    if options.model is None:
        return
    given, name = given_model(options.model), isinstance(options.model, str)
    given = replace(given, norm_order=order) if order is not None else given
    if (said := other_network(own, given, str(options.model) if name else "this run")) is not None:
        raise UnclearError(f"{source.path}: {said}{', or leave --model out' if name else ''}")


def other_network(own: Mapping[str, Any], model: ModelConfig, where: str) -> str | None:
    """Returns why the weights of one network cannot be used for another, or None if they can.

    Args:
        own: The checkpoint's network, by field of ModelConfig.
        model: The network that is asked for.
        where: The option or file that asks for it.
    """
    if (theirs := family_of(own)) != family_of(model):
        own_family = f"{family_of(model)!r} in {where}"
        return f"model.{KEY} is {quoted(theirs)} there, {own_family}: they are different kinds of networks"
    meaning = type(model).meaning
    keys = [key for key in meaning if key in own and own[key] != getattr(model, key)]
    if not keys:
        return None
    differences = (
        f"model.{key} is {quoted(own[key])} there, {getattr(model, key)!r} in {where}: {meaning[key]}"
        for key in keys
    )
    return f"{'; '.join(differences)}; set {' '.join(f'model.{key}={shown(own[key], 80)}' for key in keys)}"


def _compare_with_config(source: Source) -> None:
    """Checks that a checkpoint of our form has a network of the sizes in its manifest.

    Raises:
        CheckpointError: Sizes differ; every difference is named.
    """
    where, tensors = source.path / MANIFEST, source.tensors.get("model")
    if not tensors:
        raise CheckpointError(f"{where}: names no tensors of a model: no checkpoint to be opened")
    for group in source.tensors.values():
        for name, stored in group.items():
            if not stored.shape:
                raise CheckpointError(f"{where}: {quoted(name)} is a single number, not a tensor of a model")
    if "model" in source.manifest.config:
        model = section_of(source.path, source.manifest, ModelConfig, "model")
        if family_of(model) != PANGU:
            found = {name: (stored.shape, None) for name, stored in tensors.items()}
            compare_tensors({n: (s, None) for n, s in parameter_shapes(model).items()}, found, str(where))
            return
        said = [model_statement(model, MANIFEST)]
        refuse_contradictions(sizes_of_ours(tensors, source.path), said, source.path)


def _refuse_integers(source: Source) -> None:
    """Refuses integer tensors, as quantised files have them, because their scales are not read.

    Raises:
        CheckpointError: There are integer tensors; they are named.
    """
    names = [
        f"{name} is {piece.dtype}"
        for group in source.tensors.values()
        for name, stored in group.items()
        for piece in stored.pieces[:1]
        if piece.dtype not in _FLOATS
    ]
    if names:
        raise CheckpointError(
            f"{source.path}: {len(names)} tensors are no floating point numbers: {few(names, 3)}; if it is "
            "quantised, turn it into floating point first, by what quantised it"
        )
