"""Checks that tensors, files and options agree on the sizes of a network.

Without this check a checkpoint that has lost a layer would open as a smaller model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pangu_alpha.checkpoint.errors import CheckpointError, UnclearError
from pangu_alpha.checkpoint.tensors import Stored
from pangu_alpha.checkpoint.untrusted import MOST_LAYERS
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.files.shown import quoted
from pangu_alpha.network.parameters import BLOCKS, QUERY_LAYER, row_by_length

# Sizes by our names. The last two are not fields of ModelConfig, whose networks fix them.
FIELDS = ("vocab_size", "hidden_size", "num_layers", "num_heads", "seq_length")
FEED_FORWARD, TIED = "ffn_size", "tied_head"


@dataclass(frozen=True)
class Statement:
    """The sizes that one file or option states.

    Args:
        where: The file or option, for errors: "config.json", "--model".
        sizes: By our names; sizes that are not stated are absent.
        names: Its own name of a size, if that differs from ours.
    """

    where: str
    sizes: dict[str, Any]
    names: dict[str, str]


def stated(where: str, values: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> list[Statement]:
    """Returns the sizes that a file states, each under one or more possible names.

    Args:
        where: The file, for errors.
        values: The file's entries.
        names: Our name -> names by which the file may call it. A value of null states nothing.

    Returns:
        One statement, or several if a size is stated under several names.

    Raises:
        CheckpointError: A size is not a whole number above 0.
    """
    found: list[Statement] = []
    for ours, theirs in names.items():
        known = [name for name in theirs if values.get(name) is not None]
        for number, name in enumerate(known):
            value = values[name]
            right = isinstance(value, bool) if ours == TIED else _is_size(value)
            if not right:
                raise CheckpointError(f"{where}: {name} is {quoted(value)}, which is no size of a network")
            if number == len(found):
                found.append(Statement(where, {}, {}))
            found[number].sizes[ours] = value
            found[number].names[ours] = name
    return found


def model_statement(model: ModelConfig, where: str) -> Statement:
    """Returns the sizes of a whole configuration as a statement."""
    return Statement(where, {name: getattr(model, name) for name in FIELDS}, {})


def refuse_contradictions(shown_by_tensors: Mapping[str, Any], said: Iterable[Statement], path: Path) -> None:
    """Checks that all statements agree with each other and with the tensors.

    Args:
        shown_by_tensors: Sizes that follow from the tensors, which need not be stated.
        said: The statements of files and options.
        path: The checkpoint, for the error.

    Raises:
        CheckpointError: Sizes differ; every difference is named.
    """
    first = {name: (value, "the tensors show") for name, value in shown_by_tensors.items()}
    first[TIED] = (True, "PanGu-alpha has")
    if "hidden_size" in shown_by_tensors:
        first[FEED_FORWARD] = (4 * shown_by_tensors["hidden_size"], "PanGu-alpha has")
    problems = []
    for statement in said:
        for name, value in statement.sizes.items():
            own = statement.names.get(name, name)
            known, by = first.setdefault(name, (value, f"{statement.where} says"))
            if value != known:
                problems.append(f"{own}: {statement.where} says {_word(value)}, {by} {_word(known)}")
    if problems:
        raise CheckpointError(
            "\n  - ".join(
                [
                    f"{path}: the sizes that are stated do not agree; fetch all files of one model again, or "
                    "correct the one that is wrong:",
                    *problems,
                ]
            )
        )


def layer_count(found: Iterable[str], layer: str, where: Path) -> int:
    """Returns the number of layers, whose numbers must be 0, 1, 2, ...

    Args:
        found: Names of the tensors.
        layer: The text before the number, as in "transformer.h.".
        where: The checkpoint, for the error.

    Raises:
        CheckpointError: Layers are missing between others, or there are more than any network has.
    """
    pattern = re.compile(re.escape(layer) + r"([0-9]{1,9})\..+")
    numbers = sorted({int(match[1]) for name in found if (match := pattern.fullmatch(name))})
    gaps, expected = [], 0
    for number in numbers:
        if number > expected:
            gaps.append(f"{expected} to {number - 1}" if number - 1 > expected else str(expected))
        expected = number + 1
    if gaps:
        more = f" and {len(gaps) - 5} more gaps" if len(gaps) > 5 else ""
        raise CheckpointError(
            f"{where}: missing: layers {', '.join(gaps[:5])}{more}; {len(numbers)} are there, named {layer}N"
        )
    if len(numbers) > MOST_LAYERS:
        raise CheckpointError(f"{where}: {len(numbers):,} layers, named {layer}N, which no network has")
    return len(numbers)


def sizes_of_ours(found: Mapping[str, Stored], where: Path) -> dict[str, int]:
    """Returns the sizes that tensors under our names show; sizes of missing tensors are left out.

    Raises:
        CheckpointError: There are gaps between the layers, or a table is not a matrix.
    """
    query = any(name.startswith(f"{QUERY_LAYER.name}.") for name in found)
    layers = layer_count(found, BLOCKS.name.removesuffix("*"), where) + query
    sizes = {"num_layers": layers} if layers else {}
    for size in ("vocab_size", "seq_length"):
        if (name := row_by_length(size).name) in found:
            sizes[size], sizes["hidden_size"] = matrix(found, name, where)
    return sizes


def matrix(found: Mapping[str, Stored], name: str, where: Path) -> tuple[int, int]:
    """Returns rows and columns of a table.

    Raises:
        CheckpointError: The table is missing or not a matrix; the message names tensor, shape and file.
    """
    if name not in found:
        raise CheckpointError(f"{where}: missing: {name}")
    shape = found[name].shape
    if len(shape) != 2:
        file = found[name].pieces[0].file
        raise CheckpointError(
            f"{file}: {name} is {list(shape)}: {len(shape)} dimensions, not rows and columns"
        )
    return shape


def shipped_layers(layers: int, shipped: ModelConfig, where: Path) -> None:
    """Refuses to take the number of heads from a shipped model of which some layers seem to be lost.

    Raises:
        UnclearError: More than half of its layers are present, but not all, so that the checkpoint looks like
            a smaller model.
    """
    if shipped.num_layers / 2 < layers < shipped.num_layers:
        raise UnclearError(
            f"{where}: {layers} layers; the shipped model of hidden size {shipped.hidden_size}, whose number "
            f"of heads would be taken, has {shipped.num_layers}: are layers lost? If none is, name the model "
            "with --model"
        )


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 31


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else quoted(value)
