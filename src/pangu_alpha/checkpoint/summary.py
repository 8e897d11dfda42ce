"""Summarises a checkpoint of any form in a few figures. Reads no tensor's values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.checkpoint.naming import parameter_of
from pangu_alpha.checkpoint.tensors import Source, Stored
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.model_families import PANGU, family_of
from pangu_alpha.config.schema import build, to_mapping
from pangu_alpha.config.zoo import MODEL_NAMES, load_model_config
from pangu_alpha.files.shown import shown_name
from pangu_alpha.network.parameters import find_row

_GROUPS = ("embeddings", "attention", "feed-forward", "norms")  # in this order, other groups after them
_KEPT = ("vocab_size", "hidden_size", "num_layers", "num_heads", "seq_length")


@dataclass(frozen=True)
class Group:
    """A group of tensors of one kind.

    Args:
        stem: "model" or "optimizer".
        name: Name of the kind, such as "attention".
        tensors: Number of tensors.
        elements: Total number of elements.
        bytes: Size as stored.
        dtypes: Types that occur.
    """

    stem: str
    name: str
    tensors: int
    elements: int
    bytes: int
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """A checkpoint's figures.

    Args:
        path: What was opened.
        form: Description of the form.
        shipped: Name of the shipped model of this shape, if there is one.
        parameters: Number of trained scalars.
        plan: Parallel plan for which the checkpoint is cut; None if it is not recorded.
        step: Optimizer steps done.
        samples: Windows of data consumed.
        tokenizer: Digest of the vocabulary.
        files: Number of files with tensors.
        bytes: Size of all tensors as stored.
        notes: Assumptions that were made, and things that were left out.
        tensors: Shape, types and number of pieces by stem and name.
    """

    path: str
    form: str
    model: ModelConfig
    shipped: str | None
    parameters: int
    plan: Mapping[str, Any] | None
    step: int
    samples: int
    tokenizer: str | None
    files: int
    bytes: int
    groups: tuple[Group, ...]
    notes: tuple[str, ...]
    tensors: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)


def summarize(source: Source) -> Summary:
    """Returns the figures of an opened checkpoint.

    Raises:
        CheckpointError: The checkpoint does not record its model.
        ConfigError: The recorded model breaks a rule.
    """
    manifest = source.manifest
    if "model" not in manifest.config:
        raise CheckpointError(f"{source.path}: it does not say which model it is of")
    model = build(ModelConfig, manifest.config["model"], "model")
    stored = [tensor for group in source.tensors.values() for tensor in group.values()]
    return Summary(
        path=str(source.path),
        form=source.form,
        model=model,
        shipped=shipped_name(model),
        parameters=model.parameter_count,
        plan=manifest.config.get("parallel"),
        step=manifest.step,
        samples=manifest.samples,
        tokenizer=manifest.tokenizer,
        files=len({piece.file for tensor in stored for piece in tensor.pieces}),
        bytes=sum(map(stored_bytes, stored)),
        groups=tuple(group for stem in source.tensors for group in _groups(source, stem, type(model))),
        notes=source.notes,
        tensors={
            stem: {name: _entry(t) for name, t in group.items()} for stem, group in source.tensors.items()
        },
    )


def shipped_name(model: ModelConfig) -> str | None:
    """Returns the name of the shipped model of this shape, if there is one."""
    for name in MODEL_NAMES if family_of(model) == PANGU else ():
        other = load_model_config(name)
        if all(getattr(model, key) == getattr(other, key) for key in _KEPT):
            return name
    return None


def size_text(size: int) -> str:
    """Returns a number of bytes as text in decimal units."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size / 1000:.1f} kB"


def stored_bytes(stored: Stored) -> int:
    """Returns the number of bytes that a tensor takes in its files."""
    return sum(length for piece in stored.pieces for _, length in piece.extents)


def summary_json(summary: Summary, tensors: bool) -> dict[str, Any]:
    """Returns the summary as plain data for JSON; `tensors` adds the single tensors."""
    values = to_mapping(summary)
    return values if tensors else {key: value for key, value in values.items() if key != "tensors"}


def summary_lines(summary: Summary, tensors: bool) -> Iterator[str]:
    """Yields the summary as lines of text; `tensors` adds the single tensors."""
    model, plan = summary.model, summary.plan
    known = f"{summary.shipped}: " if summary.shipped else ""
    yield summary.path
    yield f"  form       {summary.form}"
    yield f"  model      {known}{_sizes(model)}"
    yield f"  parameters {summary.parameters:,}"
    yield f"  plan       {_plan(plan) if plan else 'not said'}"
    yield f"  position   step {summary.step:,}, {summary.samples:,} samples"
    yield f"  tokenizer  {summary.tokenizer or 'not said'}"
    yield f"  stored     {size_text(summary.bytes)} in {summary.files:,} file{'s' * (summary.files > 1)}"
    yield f"  {'':<24}{'tensors':>8}{'elements':>18}{'stored':>12}  type"
    for group in summary.groups:
        size = f"{group.tensors:>8}{group.elements:>18,}{size_text(group.bytes):>12}"
        yield f"  {group.stem + ' ' + group.name:<24}{size}  {', '.join(group.dtypes)}"
    yield from (f"  note: {note}" for note in summary.notes)
    if tensors:
        for entries in summary.tensors.values():
            for name, entry in entries.items():
                pieces = f"  {entry['pieces']} pieces" if entry["pieces"] > 1 else ""
                yield f"  {shown_name(name):<56}{entry['shape']!s:>16}  {', '.join(entry['dtypes'])}{pieces}"


def _sizes(model: ModelConfig) -> str:
    if family_of(model) != PANGU:
        return ", ".join(f"{key} {value}" for key, value in to_mapping(model).items())
    return (
        f"L {model.num_layers}, H {model.hidden_size}, N {model.num_heads}, "
        f"V {model.vocab_size}, S {model.seq_length}, {model.norm_order}, {model.activation}"
    )


def _plan(plan: Mapping[str, Any]) -> str:
    degrees = ", ".join(f"{name} {plan.get(name, 1)}" for name in ("dp", "tp", "pp"))
    table = ", operators split by a found table" if plan.get("table") else ""
    return f"{degrees}, optimizer parallel {plan.get('optimizer_parallel', 'none')}{table}"


def _groups(source: Source, stem: str, config_type: type) -> Iterator[Group]:
    tensors = source.tensors[stem]
    rows = {name: find_row(parameter_of(name), config_type) for name in tensors}
    kinds = {name: row.group if row else "other" for name, row in rows.items()}
    for kind in dict.fromkeys((*_GROUPS, *kinds.values())):
        own = [tensors[name] for name, found in kinds.items() if found == kind]
        elements = sum(math.prod(stored.shape) for stored in own)
        types = Counter(piece.dtype for stored in own for piece in stored.pieces)
        if own:
            yield Group(stem, kind, len(own), elements, sum(map(stored_bytes, own)), tuple(sorted(types)))


def _entry(stored: Stored) -> dict[str, Any]:
    dtypes = sorted({piece.dtype for piece in stored.pieces})
    return {"shape": list(stored.shape), "dtypes": dtypes, "pieces": len(stored.pieces)}
