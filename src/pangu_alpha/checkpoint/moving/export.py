"""Exports a checkpoint of any form to the forms of other programs: Hugging Face, Megatron-LM, MindSpore.

Writes only weights, except to MindSpore's slices and unified safetensors, which include the optimizer.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from pangu_alpha.checkpoint.foreign.mindspore.export import (
    export_ckpt,
    export_released,
    export_slices,
    export_unified,
)
from pangu_alpha.checkpoint.foreign.torch.huggingface import CONFIG, HEAD, port_json
from pangu_alpha.checkpoint.foreign.torch.huggingface import PORT as HUGGINGFACE
from pangu_alpha.checkpoint.foreign.torch.megatron import PORT as MEGATRON
from pangu_alpha.checkpoint.foreign.torch.ports import model_metadata, stated_end_of_document
from pangu_alpha.checkpoint.moving.copying import Limits, Slot, TargetFile, copy_into, safetensors_file
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.tensors import Source, whole
from pangu_alpha.checkpoint.vocabulary import find_vocabulary
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.model_families import pangu_config
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.files.writing import json_text
from pangu_alpha.network.parameters import TIED_TABLE, parameter_shapes
from pangu_alpha.text.tokenizer import PanguTokenizer

WEIGHTS = "model.safetensors"
DTYPES = ("float32", "float16")


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """The options of an export.

    Args:
        dtype: Type of the weights, if the form leaves a choice.
        plan: For "mindspore", the plan to cut for; None writes the files of a single device.
        official: For MindSpore's forms, official names instead of ours.
    """

    dtype: str = "float32"
    plan: ParallelPlan | None = None
    official: bool = False
    limits: Limits = dataclasses.field(default_factory=Limits)


def export_huggingface(source: Source, path: Path, options: ExportOptions) -> None:
    """Writes a folder with model.safetensors in the port's names, config.json and, if found, the vocabulary.

    Args:
        path: Folder to make.

    Raises:
        CheckpointError: The norm order is not the port's, or the folder cannot be written.
    """
    config = _port_model(source, "the Hugging Face port")
    names = HUGGINGFACE.names(config.num_layers)
    slots = _slots(config, names, options.dtype)
    # The head is tied to the table, yet written: some versions of transformers do not tie a missing head.
    slots += _slots(config, {TIED_TABLE.name: HEAD}, options.dtype)
    vocabulary = find_vocabulary(source)
    values = port_json(config, options.dtype, _end_of_text(source, vocabulary.path))
    text = json_text(values, 2).encode() + b"\n"
    file = _with_metadata(safetensors_file(Path(WEIGHTS), slots), config)
    said = TargetFile(Path(CONFIG), len(text), ((0, text),), ())
    copy_into(path, source, [file, said, *vocabulary.target_files()], limits=options.limits)


def _end_of_text(source: Source, vocabulary: Path | None) -> int | None:
    """Returns the id of the piece between the documents of the training; None if it is not recorded."""
    name = stated_end_of_document(source)
    return PanguTokenizer(vocabulary).id_of(name) if name and vocabulary else None


def export_megatron(source: Source, path: Path, options: ExportOptions) -> None:
    """Writes one safetensors file in the names of the lab's Megatron-LM, uncut and without padding.

    Args:
        path: File to make.

    Raises:
        CheckpointError: The norm order is not the port's, or the file cannot be written.
    """
    config = _port_model(source, "PanGu-alpha for Megatron-LM")
    names = MEGATRON.names(config.num_layers)
    file = safetensors_file(Path(WEIGHTS), _slots(config, names, options.dtype))
    copy_into(path, source, [_with_metadata(file, config)], limits=options.limits, only=WEIGHTS)


def _export_ckpt(source: Source, path: Path, options: ExportOptions) -> None:
    export_ckpt(source, path, options.dtype, options.limits)


def _export_released(source: Source, path: Path, options: ExportOptions) -> None:
    export_released(source, path, limits=options.limits)


def _export_mindspore(source: Source, path: Path, options: ExportOptions) -> None:
    names: Literal["ours", "official"] = "official" if options.official else "ours"
    export_slices(source, path, options.plan or ParallelPlan(), names, limits=options.limits)


def _export_unified(source: Source, path: Path, options: ExportOptions) -> None:
    export_unified(source, path, "official" if options.official else "ours", options.limits)


# The values of --to, with a description and the function that writes the form.
FORMS: Mapping[str, tuple[str, Callable[[Source, Path, ExportOptions], None]]] = {
    "huggingface": (
        "folder of the Hugging Face port: model.safetensors, config.json, vocab.model",
        export_huggingface,
    ),
    "megatron": ("one safetensors file in Megatron-LM's names", export_megatron),
    "ckpt": ("one .ckpt of MindSpore in official names", _export_ckpt),
    "released": ("512 slices, three .npy and vocab.model, as the weights were released", _export_released),
    "mindspore": ("MindSpore's slices of a plan with their strategy file, vocab.model", _export_mindspore),
    "unified": ("MindSpore's unified safetensors, vocab.model", _export_unified),
}

# Forms that are one file, and the ending of its name, by which the form is recognised.
_SUFFIXES = {"megatron": ".safetensors", "ckpt": ".ckpt"}


def export(source: Source, path: str | Path, form: str, options: ExportOptions | None = None) -> None:
    """Writes a checkpoint in another form in bounded memory; after a kill, the same call resumes.

    Args:
        path: File or folder to make.
        form: A key of FORMS.

    Raises:
        CheckpointError: The form is unknown, cannot hold this model or type, or cannot be written; or the
            file's name does not have the form's ending.
    """
    options = options or ExportOptions()
    if form not in FORMS:
        raise CheckpointError(f"to: {form!r} is none of {', '.join(FORMS)}")
    if options.dtype not in DTYPES:
        raise CheckpointError(f"dtype: {options.dtype!r} is none of {', '.join(DTYPES)}")
    if options.dtype != "float32" and form not in ("huggingface", "megatron", "ckpt"):
        raise CheckpointError(f"dtype: {form} is written in float32")
    if (suffix := _SUFFIXES.get(form)) and Path(path).suffix != suffix:
        raise CheckpointError(f"{path}: give a name that ends with {suffix}, by which it is opened again")
    FORMS[form][1](source, Path(path), options)


def vocabulary_note(source: Source, form: str) -> str:
    """Returns what the user should know about the vocabulary after an export."""
    found = find_vocabulary(source)
    if form in _SUFFIXES and found.path is not None:
        return f"{found.path.name}: has no place in one file; put a copy of {found.path} beside it"
    return found.said


def _port_model(source: Source, port: str) -> ModelConfig:
    config = pangu_config(source.manifest.config["model"], "an export")
    if config.norm_order != "norm_then_query":
        raise CheckpointError(
            f"{source.path}: its norm order is {config.norm_order}, that of the 200B; {port} computes only "
            "norm_then_query, that of the 2.6B and 13B"
        )
    return config


def _slots(config: ModelConfig, names: Mapping[str, str], dtype: str) -> list[Slot]:
    shapes = parameter_shapes(config)
    return [
        Slot("model", ours, whole(shapes[ours]), dtype=dtype, label=theirs) for ours, theirs in names.items()
    ]


def _with_metadata(file: TargetFile, config: ModelConfig) -> TargetFile:
    """Returns the safetensors file with the model's shape added to its header."""
    ((_, old),) = file.literals
    text = json.dumps(
        {"__metadata__": model_metadata(config), **json.loads(old[8:])}, separators=(",", ":")
    ).encode()
    text += b" " * (-len(text) % 8)
    new = len(text).to_bytes(8, "little") + text
    moved = len(new) - len(old)
    slots = tuple(
        dataclasses.replace(slot, extents=tuple((offset + moved, size) for offset, size in slot.extents))
        for slot in file.slots
    )
    return TargetFile(file.path, file.size + moved, ((0, new),), slots)
