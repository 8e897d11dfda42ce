"""Explains why a path cannot be opened as any form: what is wrong with its files, or what they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pangu_alpha.checkpoint.errors import CheckpointError, UnclearError
from pangu_alpha.checkpoint.foreign.mindspore.ckpt_file import read_ckpt
from pangu_alpha.checkpoint.foreign.mindspore.slices import NAME_MAP
from pangu_alpha.checkpoint.foreign.torch.ports import tensors_of
from pangu_alpha.checkpoint.untrusted import check_file, few, files_below, read_mapping

_INDICES = (".index.json", NAME_MAP)
_MOST = 8  # files that are examined
_QUERIES = re.compile("query_?embedding", re.I)
_BLOCK = re.compile(r"(^|\.)(h|layers?|blocks)\.[0-9]+\.")

# By a file's ending, how the names of its content are read.
_ASKED: dict[str, Callable[[Path], Iterable[str]]] = {
    ".safetensors": tensors_of,
    ".bin": tensors_of,
    ".pt": tensors_of,
    ".pth": tensors_of,
    ".ckpt": lambda path: read_ckpt(path).tensors,
    ".json": lambda path: _indexed(path),
}


def unknown_form(path: Path, looked_for: str) -> CheckpointError:
    """Returns the error for a path that no reader recognises.

    Args:
        path: A file or folder that exists.
        looked_for: The known forms, in words.
    """
    seen, hint = [], ""
    for file in _files(path)[:_MOST]:
        try:
            check_file(file)
            names = _ASKED[file.suffix](file)
        except (ValueError, OSError) as error:
            reason = getattr(error, "strerror", None)
            return CheckpointError(f"{file}: cannot be read ({reason})" if reason else str(error))
        if names:
            seen.append(f"{file.name} has {few(names, 3)}")
        if any(map(_BLOCK.search, names)) and not any(map(_QUERIES.search, names)):
            hint = "; these are blocks of a model without PanGu-alpha's query layer, and no other model opens"
    found = f"; {'; '.join(seen[:3])}" if seen else ""
    return UnclearError(f"{path}: no checkpoint of a known form{found}{hint}; looked for {looked_for}")


def _files(path: Path) -> list[Path]:
    """Returns the files at a path that may hold weights, or say where weights are."""
    if not path.is_dir():
        return [path] if path.suffix in _ASKED else []
    files = (file for file in path.iterdir() if file.suffix in _ASKED)
    return sorted(file for file in files if file.suffix != ".json" or file.name.endswith(_INDICES))


def _indexed(path: Path) -> dict[str, Any]:
    content = read_mapping(path)
    found = content.get("weight_map", content)
    if not isinstance(found, dict):
        return {}
    files_below(path.parent, path, found)
    return found
