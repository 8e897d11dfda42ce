"""The Hugging Face port (GPTPanguForCausalLM): safetensors or pytorch_model.bin, and config.json.

Its graph is that of the released 2.6B and 13B. Nothing here runs code of a checkpoint or needs torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pangu_alpha.checkpoint.pieces import Piece, Source, Stored
from pangu_alpha.checkpoint.ports import (
    Port,
    both,
    count_layers,
    exported_model,
    port_config,
    port_source,
    tensors_of,
)
from pangu_alpha.checkpoint.tensor_file import CheckpointError
from pangu_alpha.config.model import ModelConfig

if TYPE_CHECKING:
    from pangu_alpha.checkpoint.source import OpenOptions

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
_MASKS = re.compile(r"transformer\.h\.\d+\.attn\.(masked_)?bias")  # of causal attention: no weights
_OLDER = re.compile(r"(transformer\.h\.\d+\.attn\.)out_proj(\..+)")  # the port's first name of c_proj
# transformers' activations -> ours. Its "gelu" is that of the error function.
_ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu_fast": "gelu",
    "quick_gelu": "fast_gelu",
}  # fmt: skip
_FIELDS = {
    "num_heads": "num_heads", "resid_pdrop": "dropout", "layer_norm_epsilon": "layer_norm_epsilon",
}  # fmt: skip


def recognises(path: Path) -> bool:
    """Whether an index, config.json or the tensors' names at a path are the port's."""
    try:
        for name in _FILES:
            if (path / f"{name}.index.json").is_file():
                return _QUERIES in _index(path / f"{name}.index.json")
        if (path / _FILES[1]).is_file():  # no other form's; what is wrong with it is said when it is opened
            return True
        if (path / CONFIG).is_file() and _MODEL_TYPE in (path / CONFIG).read_text("utf-8"):
            return True
        return _QUERIES in _locate(_weights_of(path))
    except (OSError, ValueError):
        return False


def open_(path: Path, options: OpenOptions) -> Source:
    """Opens the port's folder or one of its files.

    Args:
        path: A folder with model.safetensors or pytorch_model.bin, single or with an index, or such a file.
        options: `model` where config.json is missing and the hidden size is none of the shipped models'.

    Raises:
        CheckpointError: A file is missing or damaged, names code, or tensors are missing (they are listed),
            too many or of another shape; or the head is not the table's copy.
        ConfigError: config.json or the model given breaks a rule.
    """
    weights = _weights_of(path)
    tensors = _locate(weights)
    masks = [name for name in tensors if _MASKS.fullmatch(name)]
    head = tensors.pop(HEAD, None)
    found = {name: stored for name, stored in tensors.items() if not _MASKS.fullmatch(name)}
    notes = [f"{len(masks)} causal masks left aside"] if masks else []
    said, remarks = _said(weights)
    sizes = _sizes(found, path)
    config, assumed = port_config(sizes, said, options, path)
    if head is not None:
        _check_head(head, found[PORT.outside["word_embedding.table"]], path)
    form = f"Hugging Face port, {len(weights)} file{'s' * (len(weights) > 1)}"
    names = PORT.names(config.num_layers)
    return port_source(path, form, config, names, found, (*notes, *remarks, *assumed))


def port_json(config: ModelConfig, dtype: str, end_of_text: int | None = None) -> dict[str, Any]:
    """The config.json of an export.

    Field names are those of the port's GPTPanguConfig. The activation is named as transformers computes it
    ("gelu_new" is the tanh form); `auto_map` points to the port's own files, which its users have.

    Args:
        config: The network's shape.
        dtype: Of the stored weights.
        end_of_text: Id where a text begins and ends; None is the port's own.
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
    """The files that hold the weights at a path."""
    if path.is_file():
        return [path]
    for name in _FILES:
        index = path / f"{name}.index.json"
        if index.is_file():
            files = sorted({path / file for file in _index(index).values()})
            if missing := [file.name for file in files if not file.is_file()]:
                raise CheckpointError(
                    f"{path}: {index.name} names files that are missing: {', '.join(missing)}"
                )
            return files
        if (path / name).is_file():
            return [path / name]
    raise CheckpointError(f"{path}: neither {' nor '.join(_FILES)}, nor an index of such files")


def _index(file: Path) -> dict[str, str]:
    """File of every tensor."""
    found = _read_json(file).get("weight_map")
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: no index: it has no weight_map")
    return found


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: not a JSON object")
    return values


def _locate(files: list[Path]) -> dict[str, Stored]:
    """All tensors of some files, under the port's newer names."""
    found: dict[str, Stored] = {}
    for file in files:
        for name, stored in tensors_of(file).items():
            name = _OLDER.sub(r"\1c_proj\2", name)
            if name in found:
                raise CheckpointError(f"{file}: {name} is in {found[name].pieces[0].file.name}, too")
            found[name] = stored
    return found


def _said(files: list[Path]) -> tuple[dict[str, Any], list[str]]:
    """What the header of one of our exports, else config.json, says of the shape; and remarks."""
    if files[0].suffix == ".safetensors" and (said := exported_model(files[0])):
        return said, []
    file = files[0].parent / CONFIG
    if not file.is_file():
        return {}, [f"no {CONFIG} beside it"]
    values = _read_json(file)
    said = {ours: values[theirs] for theirs, ours in _FIELDS.items() if theirs in values}
    activation = values.get("activation_function", "gelu")
    if activation not in _ACTIVATIONS:
        raise CheckpointError(
            f"{file}: activation_function {activation!r} is none of {', '.join(_ACTIVATIONS)}"
        )
    said["activation"] = _ACTIVATIONS[activation]
    remarks = []
    if activation == "gelu":
        remarks.append("the port computes gelu by the error function; here by tanh, as the model was trained")
    return said, remarks


def _sizes(found: Mapping[str, Stored], where: Path) -> dict[str, int]:
    """Fields of ModelConfig that shapes show.

    Raises:
        CheckpointError: A table is missing.
    """
    tables = [PORT.outside[f"{name}_embedding.table"] for name in ("word", "position")]
    if missing := [name for name in tables if name not in found]:
        raise CheckpointError(f"{where}: missing: {', '.join(missing)}")
    (vocab, hidden), (positions, _) = (found[name].shape for name in tables)
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "seq_length": positions,
        "num_layers": count_layers(found, PORT.layer),
    }


def _check_head(head: Stored, table: Stored, where: Path) -> None:
    """Makes sure that the head is the table, as it is here."""
    if head.shape == table.shape and _same_bytes(head.pieces[0], table.pieces[0]):
        return
    raise CheckpointError(
        f"{where}: {HEAD} differs from {PORT.outside['word_embedding.table']}: its head is not tied to the "
        "table, and PanGu-alpha's is"
    )


def _same_bytes(one: Piece, other: Piece, chunk: int = 8 << 20) -> bool:
    ((begin, length),), ((other_begin, other_length),) = one.extents, other.extents
    if (one.file, begin) == (other.file, other_begin):
        return length == other_length
    if (one.dtype, length) != (other.dtype, other_length):
        return False
    with open(one.file, "rb") as first, open(other.file, "rb") as second:
        first.seek(begin)
        second.seek(other_begin)
        sizes = (min(chunk, length - done) for done in range(0, length, chunk))
        return all(first.read(size) == second.read(size) for size in sizes)
