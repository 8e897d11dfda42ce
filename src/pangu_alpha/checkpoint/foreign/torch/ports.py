"""The common part of the two PyTorch ports of PanGu-alpha: names, the model's shape, and a Source.

Both store linear weights as [out, in], as we do. Does not know which files make up a checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pangu_alpha.checkpoint.errors import CheckpointError, UnclearError
from pangu_alpha.checkpoint.foreign.torch.torch_file import flatten, is_torch_file, read_torch_file
from pangu_alpha.checkpoint.naming import VOCABULARY
from pangu_alpha.checkpoint.native.format import Manifest, compare_tensors
from pangu_alpha.checkpoint.native.tensor_file import locate_tensors, read_metadata
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.renaming import given_model, vocabulary_digest
from pangu_alpha.checkpoint.sizes import (
    FIELDS,
    Statement,
    model_statement,
    refuse_contradictions,
    shipped_layers,
)
from pangu_alpha.checkpoint.tensors import Piece, Source, Stored, whole
from pangu_alpha.checkpoint.untrusted import mapping_of
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import build, to_mapping
from pangu_alpha.config.zoo import MODEL_NAMES, load_model_config
from pangu_alpha.files.shown import quoted
from pangu_alpha.network.parameters import QUERY_LAYER, layer_names, parameter_shapes
from pangu_alpha.network.rows import Row

END_OF_DOCUMENT = "end_of_document"  # key of Manifest.state: name of the piece between documents
METADATA = "pangu_alpha.model"  # key of a safetensors header under which our exports keep the shape


@dataclass(frozen=True)
class Port:
    """The names that a port gives to tensors.

    Args:
        outside: Our name -> the port's name, for tensors outside the layers.
        inside: The same for tensors within a layer.
        layer: The port's prefix of a layer, with {} for its number.
        query_layer: The port's prefix of the query layer, with {} for the number of layers below it.
    """

    outside: Mapping[str, str]
    inside: Mapping[str, str]
    layer: str
    query_layer: str

    def names(self, num_layers: int) -> dict[str, str]:
        """Returns the port's name of every parameter.

        Args:
            num_layers: Including the query layer.
        """
        names = dict(self.outside)
        for number, ours in enumerate(layer_names(num_layers)):
            theirs = (self.query_layer if ours == QUERY_LAYER.name else self.layer).format(number)
            names |= {f"{ours}.{part}": f"{theirs}.{name}" for part, name in self.inside.items()}
        return names

    def name_of(self, row: Row) -> str:
        """Returns the port's name of a row of the parameter table, relative to its layer if it is in one."""
        return self.inside[row.part] if row.layers else self.outside[row.name]


def both(ours: str, theirs: str, last: tuple[str, str] = ("weight", "bias")) -> dict[str, str]:
    """Maps weight and bias of a linear layer or, with gamma and beta, of a norm."""
    return {f"{ours}.{own}": f"{theirs}.{name}" for own, name in zip(last, ("weight", "bias"), strict=True)}


def port_config(
    sizes: Mapping[str, Any],
    said: Mapping[str, Any],
    statements: Sequence[Statement],
    options: OpenOptions,
    where: Path,
) -> tuple[ModelConfig, tuple[str, ...]]:
    """Derives the network's shape from tensors, files and options.

    Args:
        sizes: Sizes that follow from the tensors; see `sizes.refuse_contradictions`.
        said: Fields of ModelConfig that a file beside the tensors states.
        statements: Sizes that files state.
        options: The user's options, which take precedence.
        where: The checkpoint, for errors.

    Returns:
        The shape, and a sentence for everything that was assumed.

    Raises:
        CheckpointError: The number of heads, which no shape shows, is not stated; or a statement contradicts
            the tensors or another statement.
        ConfigError: The model that the user names does not exist, or a field breaks a rule.
    """
    own = {name: sizes[name] for name in FIELDS if name in sizes}
    given = given_model(options.model) if options.model is not None else None
    asked = (
        []
        if given is None
        else [model_statement(given, "--model" if isinstance(options.model, str) else "this run")]
    )
    refuse_contradictions(sizes, [*statements, *asked], where)
    notes: tuple[str, ...] = ()
    if given is not None:
        config = given
    else:
        heads, notes = _heads(sizes, statements, where)
        config = build(ModelConfig, {"num_heads": heads, **own, **said}, "model")
    order = options.norm_order or "norm_then_query"
    if order != config.norm_order:
        notes += (f"norm order {order}, that of this port",)
    return dataclasses.replace(config, norm_order=order), notes


def _heads(
    sizes: Mapping[str, Any], statements: Sequence[Statement], where: Path
) -> tuple[int, tuple[str, ...]]:
    """Returns the stated number of heads, or that of the shipped model of this width; and a note."""
    shipped = {config.hidden_size: config for config in map(load_model_config, MODEL_NAMES)}
    hidden = sizes["hidden_size"]
    usual = shipped.get(hidden)
    places = [each for each in statements if "num_heads" in each.sizes]
    if places:
        heads = places[0].sizes["num_heads"]
        only = f"{heads} heads, as {places[0].where} alone says: no tensor shows their number"
        if usual is not None and heads != usual.num_heads:
            only += f"; the shipped model of this hidden size has {usual.num_heads}"
        return heads, (only,) if len(places) == 1 else ()
    if usual is None:
        raise UnclearError(
            f"{where}: its number of attention heads is said nowhere, and hidden size {hidden} is none of "
            "the shipped models'; name the model with --model"
        )
    shipped_layers(sizes["num_layers"], usual, where)
    return usual.num_heads, (
        f"{usual.num_heads} heads assumed, as the shipped model of hidden size {hidden} has",
    )


def port_source(
    path: Path,
    form: str,
    config: ModelConfig,
    names: Mapping[str, str],
    found: Mapping[str, Stored],
    notes: Sequence[str] = (),
    step: int = 0,
) -> Source:
    """Returns tensors under a port's names as a Source under our names.

    Args:
        path: What was opened.
        form: Description of the form, to be shown to the user.
        names: Our name -> the port's name.
        found: The model's tensors by the port's names, and no others.
        notes: Sentences to be shown to the user.
        step: Optimizer steps done, if known.

    Raises:
        CheckpointError: Tensors are missing, extra or of another shape; all are listed.
    """
    expected = {names[ours]: (shape, None) for ours, shape in parameter_shapes(config).items()}
    compare_tensors(expected, {name: (stored.shape, None) for name, stored in found.items()}, str(path))
    manifest = Manifest(
        step=step,
        samples=0,
        config={"model": to_mapping(config)},
        tokenizer=vocabulary_digest(path),
        kind="weights",
    )
    model = {ours: found[names[ours]] for ours in parameter_shapes(config)}
    return Source(path, form, manifest, {"model": model}, tuple(notes))


def stated_end_of_document(source: Source) -> str | None:
    """Returns the name of the piece between documents that a checkpoint records, or None.

    Raises:
        CheckpointError: The record is not text.
    """
    name = source.manifest.state.get(END_OF_DOCUMENT)
    if name is not None and not isinstance(name, str):
        raise CheckpointError(
            f"{source.path}: state.{END_OF_DOCUMENT} is {quoted(name)}, not the name of a piece; name the "
            "piece by predict.py --end-of-document, or write the checkpoint anew"
        )
    return name


def vocabulary_places(path: Path) -> list[Path]:
    """Returns where a checkpoint's vocabulary may lie: in it, beside it, or in the two folders above."""
    return [folder / VOCABULARY for folder in (path, *path.absolute().parents[:2])]


def model_metadata(config: ModelConfig) -> dict[str, str]:
    """Returns what our exports store in a safetensors header, so that they can be opened without options."""
    return {METADATA: json.dumps(to_mapping(config)), "format": "pt"}


def exported_model(file: Path) -> dict[str, Any]:
    """Returns fields of ModelConfig from the header of one of our exports; none for other safetensors files.

    Raises:
        CheckpointError: The file is not safetensors, truncated or damaged.
    """
    return mapping_of(read_metadata(file).get(METADATA, "{}"), f"{file}: what its header says of the model")


def tensors_of(file: Path) -> dict[str, Stored]:
    """Returns the tensors of a safetensors or torch file, by name.

    Raises:
        CheckpointError: The file is neither, or is damaged, or names code.
    """
    if is_torch_file(file):
        return {name: tensor.stored(file.name) for name, tensor in flatten(read_torch_file(file)).items()}
    return {
        name: Stored(
            extent.shape,
            (
                Piece(
                    whole(extent.shape), file, ((extent.offset, extent.bytes),), extent.dtype, label=file.name
                ),
            ),
        )
        for name, extent in locate_tensors(file).items()
    }
