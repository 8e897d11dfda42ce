"""Recognises a PanGu-alpha by its tensors' names: the official ones of 2021 and 2023, or ours.

Knows names only, neither shapes nor values.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.checkpoint.foreign.mindspore.released import LAYER, SHARED, TABLES
from pangu_alpha.checkpoint.untrusted import few
from pangu_alpha.config.model import NormOrder
from pangu_alpha.files.shown import quoted
from pangu_alpha.network.parameters import (
    BLOCKS,
    QUERY_LAYER,
    find_row,
    layers_expression,
)

VOCABULARY = "vocab.model"
MOMENTS = ("adam_m.", "adam_v.")

_TABLES_2023 = {
    "word_embedding.table": "backbone.embedding.word_embedding.embedding_table",
    "position_embedding.table": "backbone.embedding.position_embedding.embedding_table",
}
_OUTSIDE = {
    theirs: ours for table in (*TABLES.values(), SHARED, _TABLES_2023) for ours, theirs in table.items()
}
_INSIDE = {theirs: (ours, flip) for ours, (theirs, flip) in LAYER.items()}
_OFFICIAL = re.compile(r"backbone\.(?:blocks\.(?P<index>[0-9]{1,9})|(?P<top>top_query_layer))\.(?P<rest>.+)")
_OURS = re.compile("(?:" + layers_expression("(?P<index>[0-9]{1,9})") + r")\.(?P<rest>.+)")
_CACHES = re.compile(r".*\.(?:key_past|value_past)")  # of the 2023 code's incremental decoding; not weights
_PREFIXES = {moment: moment for moment in MOMENTS} | {"moment1.": MOMENTS[0], "moment2.": MOMENTS[1]}
_DEEPEST = 8  # most parts of a name in front of the network's own
_WEIGHTS = re.compile(r"(?:adam_[mv]\.)?(?:backbone\.|blocks\.|query_layer\.|final_norm\.|\w*embedding)")


def parameter_of(name: str) -> str:
    """Returns the parameter that a tensor belongs to: a weight itself, or the weight of a moment."""
    prefix = next((prefix for prefix in MOMENTS if name.startswith(prefix)), "")
    return name.removeprefix(prefix)


@dataclass(frozen=True)
class Names:
    """The meaning of a checkpoint's tensor names.

    Args:
        ours: (stem, our name) -> (stored name, whether the stored tensor is the transpose of ours).
        layers: Number of layers, including the query layer.
        norm_order: What the official class with these names computes; None if the names do not determine it.
        year: 2021 or 2023, the version of the official code that uses these names; None for our own names.
        aside: Names of tensors that are neither weights nor moments.
        front: Common prefix of all names, added by a cell around the network.
    """

    ours: Mapping[tuple[str, str], tuple[str, bool]]
    layers: int
    norm_order: NormOrder | None
    year: int | None
    aside: tuple[str, ...]
    front: str = ""


def read_names(names: Iterable[str], where: object) -> Names:
    """Recognises whose names a checkpoint uses and what they mean.

    Args:
        names: Names of all tensors of the checkpoint, including moments.
        where: The checkpoint, for errors.

    Raises:
        CheckpointError: They are not the names of a PanGu-alpha, or some look like weights and are unknown.
    """
    names = list(names)
    front = _front(names, where)
    found: dict[str, str] = {}  # by the names without the network's prefix
    for name in names:
        plain = _plain(name, front)
        if plain in found:
            raise CheckpointError(f"{where}: {found[plain]} and {name} are the same tensor")
        found[plain] = name
    read = _read_plain(list(found), where)
    ours = {key: (found[plain], flip) for key, (plain, flip) in read.ours.items()}
    aside = tuple(found[plain] for plain in read.aside)
    return dataclasses.replace(read, ours=ours, aside=aside, front=front)


def _front(names: Iterable[str], where: object) -> str:
    """Returns the prefix of the network's names: a cell with the network as `network` adds "network.".

    Raises:
        CheckpointError: There are several networks.
    """
    fronts: dict[str, str] = {}
    for name in names:
        base = name.removeprefix(_prefix(name))
        parts = base.split(".", _DEEPEST)
        for count in range(len(parts)):
            if _is_known(".".join(parts[count:])):
                fronts.setdefault("".join(f"{part}." for part in parts[:count]), name)
                break
    if len(fronts) > 1 and "" not in fronts:
        raise CheckpointError(
            f"{where}: names of {len(fronts)} networks, such as {few(fronts.values(), 2)}; give the "
            "weights of one"
        )
    return "" if "" in fronts else next(iter(fronts), "")


def _prefix(name: str) -> str:
    """Returns the prefix by which MindSpore's optimizers name a moment; empty for a weight."""
    return next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")


def _plain(name: str, front: str) -> str:
    """Returns a name without the network's prefix; moments get our prefixes."""
    prefix = _prefix(name)
    base = name.removeprefix(prefix)
    if front and not base.startswith(front):
        return name
    return _PREFIXES.get(prefix, "") + base.removeprefix(front)


def _is_known(base: str) -> bool:
    """Whether this is the name of one of the network's parameters, ours or official."""
    if base in _OUTSIDE or find_row(base):
        return True
    official = _OFFICIAL.fullmatch(base)
    return bool(official and official["rest"] in _INSIDE)


def _read_plain(names: Sequence[str], where: object) -> Names:
    """Recognises names from which the network's prefix has been removed; see `read_names`."""
    theirs = next((name for name in names if name.startswith("backbone.")), None)
    official = theirs is not None
    own = next((name for name in names if _OURS.fullmatch(name)), None)
    if official and own is not None:
        raise CheckpointError(
            f"{where}: names of two kinds, such as {quoted(theirs)} and {quoted(own)}; give the tensors of "
            "one checkpoint"
        )
    pattern = _OFFICIAL if official else _OURS
    matches = [match for name in names if (match := pattern.fullmatch(name))]
    if not matches:
        examples = few(names, 3) or "none"
        raise CheckpointError(
            f"{where}: not a PanGu-alpha: no tensor is named like backbone.blocks.0.layernorm1.gamma or "
            f"blocks.0.attention_norm.gamma; it has {examples}"
        )
    indices = {int(match["index"]) for match in matches if match["index"]}
    top = not official or any(match["top"] for match in matches)
    last = None if top else max(indices)
    found: dict[tuple[str, str], tuple[str, bool]] = {}
    aside, unknown = [], []
    for name in names:
        place = _place(name, official, last)
        if place is not None:
            stem, ours, flip = place
            if (stem, ours) in found:
                raise CheckpointError(f"{where}: {found[stem, ours][0]} and {name} are the same tensor")
            found[stem, ours] = (name, flip)
        elif _WEIGHTS.match(name) and not _CACHES.fullmatch(name):
            unknown.append(name)
        else:
            aside.append(name)
    if unknown:
        raise CheckpointError(
            f"{where}: {len(unknown)} tensors are not of the official network of 2021 or 2023: {few(unknown)}"
        )
    year = (2023 if any(name in _TABLES_2023.values() for name in names) else 2021) if official else None
    order: NormOrder | None = None
    if official:
        order = "norm_then_query" if top else "query_then_norm"
    return Names(found, len(indices) + top, order, year, tuple(aside))


def _place(name: str, official: bool, last: int | None) -> tuple[str, str, bool] | None:
    """Returns stem, our name and transposition of a tensor, or None if it is unknown.

    Args:
        name: The stored name.
        official: Whether the name is the official code's.
        last: Number of the block that is the query layer; None if that layer has a name of its own.
    """
    base = parameter_of(name)
    prefix = name.removesuffix(base)
    stem = "optimizer" if prefix else "model"
    if not official:
        return (stem, name, False) if find_row(base) else None
    if base in _OUTSIDE:
        return stem, prefix + _OUTSIDE[base], False
    match = _OFFICIAL.fullmatch(base)
    if match is None or match["rest"] not in _INSIDE:
        return None
    ours, flip = _INSIDE[match["rest"]]
    query = match["top"] or (last is not None and int(match["index"]) == last)
    layer = QUERY_LAYER.name if query else BLOCKS.name.replace("*", match["index"])
    return stem, f"{prefix}{layer}.{ours}", flip
