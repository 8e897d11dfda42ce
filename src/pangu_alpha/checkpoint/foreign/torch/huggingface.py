"""The Hugging Face port (GPTPanguForCausalLM): safetensors or pytorch_model.bin, and config.json.

Its graph is that of the released 2.6B and 13B. Neither runs a checkpoint's code nor needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.checkpoint.foreign.torch.ports import (
    Port,
    both,
    exported_model,
    port_config,
    port_source,
    tensors_of,
)
from pangu_alpha.checkpoint.foreign.torch.wrappers import unwrapped
from pangu_alpha.checkpoint.moving.reading import read_box, row_boxes
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.sizes import FEED_FORWARD, FIELDS, TIED, Statement, layer_count, matrix, stated
from pangu_alpha.checkpoint.tensors import Source, Stored, whole
from pangu_alpha.checkpoint.untrusted import few, files_below, read_bytes, read_mapping
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.files.shown import quoted
from pangu_alpha.network.parameters import TIED_TABLE, row_by_length

CONFIG = "config.json"
HEAD = "lm_head.weight"
_QUERIES = "transformer.wqe.weight"
_MODEL_TYPE = "gpt_pangu"
_END_OF_TEXT = 9  # bos and eos of the port's own configuration: <eot> of the released vocabulary
_NORM = ("gamma", "beta")

PORT = Port(
    outside={
        "word_embedding.table": "transformer.wte.weight",
        "position_embedding.table": "transformer.wpe.weight",
        "query_embedding.table": _QUERIES,
        **both("final_norm", "transformer.ln_f", _NORM),
    },
    inside={
        **both("attention_norm", "ln_1", _NORM),
        **both("attention.query", "attn.q_proj"),
        **both("attention.key", "attn.k_proj"),
        **both("attention.value", "attn.v_proj"),
        **both("attention.output", "attn.c_proj"),
        **both("feed_forward_norm", "ln_2", _NORM),
        **both("feed_forward.up", "mlp.c_fc"),
        **both("feed_forward.down", "mlp.c_proj"),
    },
    layer="transformer.h.{}",
    query_layer="transformer.h.{}",
)

_FILES = ("model.safetensors", "pytorch_model.bin")  # each single, or several with an index
_ANCHORS = (_QUERIES, _QUERIES.removeprefix("transformer."))
_MASKS = re.compile(r"transformer\.h\.\d+\.attn\.(masked_)?bias")  # of causal attention; not weights
_OLDER = re.compile(r"(transformer\.h\.\d+\.attn\.)out_proj(\..+)")  # the port's first name of c_proj
# transformers' activations -> ours. Its "gelu" is that of the error function.
_ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu_fast": "gelu",
    "quick_gelu": "fast_gelu",
}  # fmt: skip
_FIELDS = {"resid_pdrop": "dropout", "layer_norm_epsilon": "layer_norm_epsilon"}
# Our name of a size -> its names in config.json: the port's, and those of GPT-2 and of newer configurations.
_SIZES = {
    "vocab_size": ("vocab_size",),
    "hidden_size": ("hidden_size", "n_embd"),
    "num_layers": ("num_layers", "n_layer", "num_hidden_layers"),
    "num_heads": ("num_heads", "n_head", "num_attention_heads"),
    "seq_length": ("max_position_embeddings", "n_positions", "n_ctx"),
    FEED_FORWARD: ("intermediate_size", "n_inner"),
    TIED: ("tie_word_embeddings",),
}
_BASE = "transformer."  # prefix of all names but the head's; files of the base model lack it
_COMPARED = 1 << 20  # numbers of the head and of the table that are compared at a time


def recognises(path: Path) -> bool:
    """Whether an index, config.json or the tensors' names at a path are the port's."""
    try:
        for name in _FILES:
            if (path / f"{name}.index.json").exists():
                return _QUERIES in _base_names(unwrapped(_index(path / f"{name}.index.json"), _ANCHORS)[0])
        if (path / _FILES[1]).exists():  # certainly this form; opening it reports what is wrong
            return True
        if _is_the_ports(path / CONFIG):
            return True
        return _QUERIES in _locate(_weights_of(path), path)[0]
    except (OSError, ValueError):
        return False


def _is_the_ports(config: Path) -> bool:
    """Whether a config.json names the port; false if it cannot be read."""
    try:
        return config.is_file() and _MODEL_TYPE.encode() in read_bytes(config)
    except (OSError, CheckpointError):
        return False


def open_(path: Path, options: OpenOptions) -> Source:
    """Opens the port's folder or one of its files.

    Args:
        path: A folder with model.safetensors or pytorch_model.bin, single or with an index, or such a file.
        options: `model` is needed if config.json is missing and no shipped model has this hidden size.

    Raises:
        CheckpointError: A file is missing or damaged or names code; tensors are missing (they are listed),
            extra or of another shape; or the head is not a copy of the table.
        ConfigError: config.json or the model given breaks a rule.
    """
    weights = _weights_of(path)
    tensors, notes = _locate(weights, path)
    masks = [name for name in tensors if _MASKS.fullmatch(name)]
    head = tensors.pop(HEAD, None)
    found = {name: stored for name, stored in tensors.items() if not _MASKS.fullmatch(name)}
    notes += [f"{len(masks)} causal masks left aside"] if masks else []
    said, statements, remarks = _said(path, weights)
    config, assumed = port_config(_sizes(found, path), said, statements, options, path)
    if head is not None:
        _check_head(head, found[PORT.name_of(TIED_TABLE)], path)
    form = f"Hugging Face port, {len(weights)} file{'s' * (len(weights) > 1)}"
    names = PORT.names(config.num_layers)
    return port_source(path, form, config, names, found, (*notes, *remarks, *assumed))


def port_json(config: ModelConfig, dtype: str, end_of_text: int | None = None) -> dict[str, Any]:
    """Returns the config.json of an export.

    Field names are those of the port's GPTPanguConfig. The activation is named as transformers computes it
    ("gelu_new" is the tanh form); `auto_map` points to the port's own files, which its users have.

    Args:
        dtype: Type of the stored weights.
        end_of_text: Id with which a text begins and ends; None is the port's own default.
    """
    ends = _END_OF_TEXT if end_of_text is None else end_of_text
    activation = {"gelu": "gelu_new", "fast_gelu": "quick_gelu"}[config.activation]
    rate = config.dropout
    return {
        "architectures": ["GPTPanguForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_gptpangu.GPTPanguConfig",
            "AutoModelForCausalLM": "modeling_gptpangu.GPTPanguForCausalLM",
        },
        "model_type": _MODEL_TYPE,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.seq_length,
        "hidden_size": config.hidden_size,
        "intermediate_size": None,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "activation_function": activation,
        "resid_pdrop": rate,
        "embd_pdrop": rate,
        "attn_pdrop": rate,
        "layer_norm_epsilon": config.layer_norm_epsilon,
        "scale_attn_weights": True,
        "bos_token_id": ends,
        "eos_token_id": ends,
        "tie_word_embeddings": True,
        "use_cache": True,
        "torch_dtype": dtype,
    }


def _weights_of(path: Path) -> list[Path]:
    """Returns the files that hold the weights at a path."""
    if path.is_file():
        return [path]
    for name in _FILES:
        index = path / f"{name}.index.json"
        if index.exists():
            files = files_below(path, index, _index(index))
            if missing := [file.name for file in files if not file.exists()]:
                raise CheckpointError(f"{path}: {index.name} names files that are missing: {few(missing)}")
            return files
        if (path / name).exists():  # opening it refuses what is not a file
            return [path / name]
    raise CheckpointError(f"{path}: neither {' nor '.join(_FILES)}, nor an index of such files")


def _index(file: Path) -> dict[str, Any]:
    """Reads the file name of every tensor from an index."""
    found = read_mapping(file).get("weight_map")
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: no index: it has no weight_map")
    return found


def _locate(files: list[Path], where: Path) -> tuple[dict[str, Stored], list[str]]:
    """Returns all tensors of some files under the port's newer names, and notes about removed prefixes."""
    found: dict[str, Stored] = {}
    for file in files:
        for name, stored in tensors_of(file).items():
            if name in found:
                raise CheckpointError(f"{file}: {name} is in {found[name].pieces[0].file.name}, too")
            found[name] = stored
    try:
        inside, notes = unwrapped(found, _ANCHORS)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from error
    named = _base_names(inside)
    if named.keys() != inside.keys():
        notes += (f"names of the base model, without {_BASE!r}",)
    renamed: dict[str, Stored] = {}
    for name, stored in named.items():
        name = _OLDER.sub(r"\1c_proj\2", name)
        if name in renamed:
            raise CheckpointError(f"{stored.pieces[0].file}: {name} is there under two names")
        renamed[name] = stored
    return renamed, [*notes]


def _base_names(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tensors under the whole model's names, if they have those of its base model."""
    if _QUERIES in found or _QUERIES.removeprefix(_BASE) not in found:
        return dict(found)
    return {name if name == HEAD else _BASE + name: each for name, each in found.items()}


def _said(path: Path, files: list[Path]) -> tuple[dict[str, Any], list[Statement], list[str]]:
    """Returns what an export's header, or else config.json, states: fields of the model, sizes, notes."""
    said: dict[str, Any] = {}
    statements: list[Statement] = []
    if files[0].suffix == ".safetensors" and (said := exported_model(files[0])):
        statements = stated(f"the header of {files[0]}", said, {name: (name,) for name in FIELDS})
    folders = dict.fromkeys((path if path.is_dir() else path.parent, files[0].parent))
    configs = [folder / CONFIG for folder in folders if (folder / CONFIG).exists()]
    values = [read_mapping(file) for file in configs]
    for file, each in zip(configs, values, strict=True):
        statements += stated(str(file), each, _SIZES)
    if said:
        return said, statements, []
    if not configs:
        return {}, [], [f"no {CONFIG} beside it"]
    said, remarks = _network(configs[0], values[0])
    return said, statements, remarks


def _network(file: Path, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the fields that config.json states besides the sizes, and notes."""
    said = {ours: values[theirs] for theirs, ours in _FIELDS.items() if theirs in values}
    for theirs in (name for name in _FIELDS if name in values):
        if type(values[theirs]) not in (int, float) or not 0 <= values[theirs] < 1:
            raise CheckpointError(
                f"{file}: {theirs} is {quoted(values[theirs])}, not a number from 0 to below 1"
            )
    activation = values.get("activation_function", "gelu")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise CheckpointError(
            f"{file}: activation_function {quoted(activation)} is none of {', '.join(_ACTIVATIONS)}"
        )
    said["activation"] = _ACTIVATIONS[activation]
    if activation != "gelu":
        return said, []
    return said, ["the port computes gelu by the error function; here by tanh, as the model was trained"]


def _sizes(found: Mapping[str, Stored], where: Path) -> dict[str, int]:
    """Returns fields of ModelConfig that follow from shapes.

    Raises:
        CheckpointError: A table is missing or not a matrix, or there are gaps between the layers.
    """
    word, position = (PORT.name_of(row_by_length(size)) for size in ("vocab_size", "seq_length"))
    if missing := [name for name in (word, position) if name not in found]:
        raise CheckpointError(
            f"{where}: missing: {', '.join(missing)}; it has {few(found, 3) or 'no tensors'}"
        )
    vocabulary, hidden = matrix(found, word, where)
    layer = PORT.layer.removesuffix("{}")
    layers = layer_count(found, layer, where)
    if not layers:
        raise CheckpointError(f"{where}: missing: all layers, named {layer}0 ...; it has {few(found, 3)}")
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "seq_length": matrix(found, position, where)[0],
        "num_layers": layers,
    }


def _check_head(head: Stored, table: Stored, where: Path) -> None:
    """Checks that the head equals the table, because our models tie the two."""
    if head.shape == table.shape and _same_numbers(head, table):
        return
    raise CheckpointError(
        f"{where}: {HEAD} differs from {PORT.name_of(TIED_TABLE)}: its head is not tied to the "
        "table, and PanGu-alpha's is"
    )


def _same_numbers(one: Stored, other: Stored) -> bool:
    """Whether two tensors of one shape hold the same numbers, whatever their types."""
    first, second = one.pieces[0], other.pieces[0]
    if (first.file, first.extents, first.dtype) == (second.file, second.extents, second.dtype):
        return True
    for rows in row_boxes(whole(one.shape), _COMPARED):
        left, right = (read_box(each, rows, np.float64, verify=False, name=HEAD) for each in (one, other))
        if not np.array_equal(left, right, equal_nan=True):
            return False
    return True
