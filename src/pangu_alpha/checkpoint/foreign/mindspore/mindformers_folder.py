"""A folder that save_for_mindformers or MindFormers' save_pretrained wrote: config.json and .ckpt files.

Read without MindFormers and without MindSpore.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pangu_alpha.checkpoint.foreign.mindspore.ckpt_file import read_ckpt
from pangu_alpha.checkpoint.foreign.torch.ports import END_OF_DOCUMENT
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError, UnclearError
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.renaming import as_source, given_model
from pangu_alpha.checkpoint.tensors import Piece, Source, Stored, whole
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import build
from pangu_alpha.files.reading import read_json
from pangu_alpha.files.shown import quoted

MODEL_TYPE = "pangu_alpha"  # the name under which our integration registers it
WEIGHTS = "mindspore_model.ckpt"
_CONFIG, _TOKENIZER, _INDEX = "config.json", "tokenizer_config.json", f"{WEIGHTS}.index.json"
_MOST = 64 << 20  # bytes of config.json or of the index


def recognises(path: Path) -> bool:
    """Whether a folder's config.json describes our model in MindFormers, and weights lie beside it."""
    if not ((path / WEIGHTS).is_file() or (path / _INDEX).is_file()) or not (path / _CONFIG).is_file():
        return False
    try:
        said = read_json(path / _CONFIG, most=_MOST)
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and said.get("model_type") == MODEL_TYPE


def open_(path: Path, options: OpenOptions) -> Source:
    """Opens the folder; config.json gives the network's shape.

    Raises:
        CheckpointError: A file is missing or damaged, its tensors do not match config.json, or an option
            contradicts config.json.
        ConfigError: config.json breaks a rule of ModelConfig.
    """
    config = _config(path, options)
    files, stored = _files(path), {}
    info: dict[str, Any] = {}
    for file in files:
        found = read_ckpt(file)
        info |= found.info
        for name, one in found.tensors.items():
            if name in stored:
                raise CheckpointError(f"{file}: {quoted(name)} is in another file, too")
            stored[name] = Stored(one.shape, (Piece(whole(one.shape), file, one.extents, one.dtype),))
    form = f"MindFormers folder, {len(files)} file{'s' * (len(files) > 1)}"
    source = as_source(path, form, stored, dataclasses.replace(options, model=config), info)
    manifest = dataclasses.replace(source.manifest, state=_state(path))
    return dataclasses.replace(source, manifest=manifest)


def _state(path: Path) -> dict[str, str]:
    """Returns the entry of Manifest.state for the piece that ends a document, or nothing if it is unknown.

    The piece is the end of sequence of the folder's tokenizer, which differs between runs.
    """
    if not (path / _TOKENIZER).is_file():
        return {}
    said = read_json(path / _TOKENIZER, most=_MOST)
    end = said.get("eos_token") if isinstance(said, dict) else None
    end = end.get("content") if isinstance(end, dict) else end
    return {END_OF_DOCUMENT: end} if isinstance(end, str) else {}


def _config(path: Path, options: OpenOptions) -> ModelConfig:
    said = read_json(path / _CONFIG, most=_MOST)
    names = [field.name for field in dataclasses.fields(ModelConfig)]
    config = build(ModelConfig, {name: said[name] for name in names if name in said}, str(path / _CONFIG))
    if options.model is not None:
        given = given_model(options.model)
        if other := [name for name in names if getattr(given, name) != getattr(config, name)]:
            raise UnclearError(
                f"{path / _CONFIG}: says {other[0]} {getattr(config, other[0])!r}, the model given "
                f"{getattr(given, other[0])!r}; leave --model out"
            )
    return config


def _files(path: Path) -> list[Path]:
    """Returns the single weights file, or those that the index names; none of them is outside the folder."""
    if not (path / _INDEX).is_file():
        return [path / WEIGHTS]
    index = read_json(path / _INDEX, most=_MOST)
    names: Any = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"{path / _INDEX}: its weight_map is no map of names to files")
    files = sorted(set(names.values()))
    for name in files:
        if Path(name).name != name or not (path / name).is_file():
            raise CheckpointError(f"{path / _INDEX}: names {quoted(name)}, which is no file of the folder")
    return [path / name for name in files]
