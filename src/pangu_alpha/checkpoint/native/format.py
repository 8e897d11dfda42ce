"""One checkpoint: a folder of safetensors files, manifest.json and the marker COMPLETE, complete or absent.

Writes, verifies and reads one folder, and does not know the others of a run (see store.py). Checksums cover
every byte: the manifest covers tensors and headers, the marker covers the manifest.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.checkpoint.native.durable import appearing_folder
from pangu_alpha.checkpoint.native.tensor_file import (
    FileRecord,
    Tensors,
    checksum,
    file_bytes,
    find_damage,
    map_tensors,
    write_tensors,
)
from pangu_alpha.checkpoint.untrusted import are_sizes, few, is_shape, mapping_of, read_bytes
from pangu_alpha.files.reading import ReadError, refuse_halves
from pangu_alpha.files.shown import quoted, shown_name
from pangu_alpha.files.writing import durable_file, finite, sync_folder, write_all

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MARKER = "COMPLETE"
_MARGIN = 1 << 20  # bytes for manifest, marker and the file system's own tables

# Python type of each field of Manifest after JSON.
_KINDS: Mapping[str, Any] = {
    "step": int, "samples": int, "config": dict, "tokenizer": str | None, "state": dict, "kind": str,
    "files": dict, "slices": dict, "parts": dict, "attempt": str, "version": int,
}  # fmt: skip
_NEEDED = {"step", "samples", "config", "files"}

Spec = tuple[Sequence[int], Any]


@dataclass(frozen=True)
class Manifest:
    """A checkpoint's description of itself, so that no other file is needed to use it.

    Args:
        step: Optimizer steps done.
        samples: Position in the data: number of windows consumed, whatever the batch size was.
        config: The whole configuration of the run, as nested plain mappings.
        tokenizer: Digest of the vocabulary; None if the run has none.
        state: The rest of the training state (loss scale, counters, running means): plain mappings, lists,
            finite numbers and texts. Numbers are restored bit for bit.
        kind: "training": weights and optimizer of one process; "weights": the model alone; "slices": the
            parts of all ranks of a plan; "part": the part of one rank.
        files: Content of each file by stem; filled in by `write_checkpoint`.
        slices: In a part, by stem and name: where the slice begins in the whole tensor, and the shape of the
            whole without padding, {"start": [...], "shape": [...]}.
        parts: In "slices": each part's folder and the checksum of its manifest.
        attempt: The start of the job that wrote the checkpoint, if several processes did: parts of different
            starts are never combined.
        version: Version of the format.
    """

    step: int
    samples: int
    config: Mapping[str, Any]
    tokenizer: str | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "training"
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    slices: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    attempt: str = ""
    version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found to be complete."""

    path: Path
    manifest: Manifest

    def load(self, stem: str) -> dict[str, np.ndarray]:
        """Maps the tensors of a file into memory; pages are read when used, writes stay in this process.

        Args:
            stem: The file's name without its ending, such as "model" or "optimizer".

        Raises:
            CheckpointError: There is no such file.
        """
        self._record(stem)
        return map_tensors(self.path / f"{stem}.safetensors")

    def specs(self, stem: str) -> dict[str, Spec]:
        """Returns shape and type of every tensor of a file, from the manifest only; see `compare_tensors`."""
        return {name: (entry.shape, entry.dtype) for name, entry in self._record(stem).tensors.items()}

    def _record(self, stem: str) -> FileRecord:
        if stem not in self.manifest.files:
            raise CheckpointError(
                f"{self.path}: has no file {stem!r}; it has {', '.join(self.manifest.files)}"
            )
        return self.manifest.files[stem]


def write_checkpoint(
    path: str | Path, tensors: Mapping[str, Tensors], manifest: Manifest, aside: Path | None = None
) -> Manifest:
    """Writes a checkpoint so that a kill at any moment leaves either all of it or none of it.

    Args:
        path: The folder to make.
        tensors: Arrays by name for every file's stem, for example {"model": ..., "optimizer": ...}.
        manifest: Describes the checkpoint; its `files` are filled in.
        aside: New name for the folder that exists at `path`, given to it just before it is replaced.

    Returns:
        The manifest as written.

    Raises:
        CheckpointError: The folder exists and `aside` is None, a type cannot be stored, or the disk is full
            or refuses the data. Nothing is left behind.
    """
    path = Path(path)
    needed = sum(file_bytes(group) for group in tensors.values()) + _MARGIN
    _check_plain({"config": manifest.config, "state": manifest.state})
    if aside is None and path.exists():
        raise CheckpointError(f"{path}: exists already; a checkpoint never overwrites anything")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < needed:
            raise OSError(errno.ENOSPC, "the disk is too full to begin")
        with appearing_folder(path, aside) as scratch:
            return _fill(scratch, tensors, manifest)
    except OSError as error:
        raise CheckpointError(f"{path}: not written: {_explain(error, path, needed)}") from error


def seal_folder(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest and, once everything else is on disk, the marker that completes a checkpoint.

    Raises:
        OSError: The disk does not accept the files.
    """
    # ASCII, because paths in a configuration may not be UTF-8; NaN becomes null
    text = json.dumps(finite(dataclasses.asdict(manifest)), indent=1, allow_nan=False).encode()
    _write_text(folder / MANIFEST, text)
    sync_folder(folder)  # a file system may reorder writes: the marker must not appear before the rest
    _write_text(folder / MARKER, _marker(text))


def read_checkpoint(
    path: str | Path, verify: bool = True, parts: Collection[str] | None = None
) -> Checkpoint:
    """Opens a checkpoint after checking that it is complete.

    Args:
        verify: Read every byte and compare the checksums. Otherwise only the marker, the manifest, and the
            sizes and headers of the files are compared: enough if every byte has just been verified.
        parts: Check only these ranks' parts, because other processes check the others; None checks all.

    Raises:
        CheckpointError: The checkpoint is missing, unfinished, of a newer format, truncated or corrupted; all
            damage is listed with file, tensor, expected and actual value.
    """
    path = Path(path)
    manifest = read_manifest(path)
    damage = [*_damage(path, manifest, verify)]
    for name in manifest.parts:
        if parts is None or name in parts:
            damage += _part_damage(path / name, manifest.parts[name], verify)
    if damage:
        raise CheckpointError("\n  - ".join([f"{path}: damaged:", *damage]))
    return Checkpoint(path, manifest)


def read_manifest(path: Path) -> Manifest:
    """Reads the manifest of a finished checkpoint or of a rank's finished part; looks at no other file.

    Raises:
        CheckpointError: The manifest is missing, unfinished, damaged or of a newer format.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: there is no such folder; give that of a checkpoint")
    if not (path / MARKER).exists():
        raise CheckpointError(f"{path}: unfinished or no checkpoint: it has no file {MARKER}{_hint(path)}")
    try:
        text, marker = read_bytes(path / MANIFEST), read_bytes(path / MARKER)
    except OSError as error:
        raise CheckpointError(f"{error.filename}: cannot be read ({error.strerror})") from error
    if marker != _marker(text):
        expected = marker[:200].decode("ascii", errors="backslashreplace").strip()
        found = _marker(text).decode().strip()
        raise CheckpointError(f"{path}: damaged: {MARKER} says {expected!r}, {MANIFEST} gives {found!r}")
    return _parse_manifest(path, text)


def compare_tensors(expected: Mapping[str, Spec], found: Mapping[str, Spec], where: str) -> None:
    """Checks that the tensors found are exactly those that a model needs.

    Args:
        expected: Shape and type by name; a type of None accepts every type.
        found: Shape and type by name of the tensors that exist.
        where: The checkpoint, for the error.

    Raises:
        CheckpointError: Lists every missing and extra tensor, and every one of another shape or type.
    """
    lines = [f"missing: {_tensor(name, expected)}" for name in expected if name not in found]
    lines += [f"extra: {_tensor(name, found)}" for name in found if name not in expected]
    for name in expected:
        if name in found and not _fits(expected[name], found[name]):
            lines.append(f"differs: {_tensor(name, expected)}, found {_tensor('', found, name)}")
    if lines:
        count, most = len(lines), 100
        if count > most:
            lines = [*lines[:most], f"and {count - most:,} more"]
        heading = f"{where}: {count} tensors do not fit the {len(expected)} expected; nothing was loaded"
        raise CheckpointError("\n  - ".join([f"{heading}:", *lines]))


def _fill(folder: Path, tensors: Mapping[str, Tensors], manifest: Manifest) -> Manifest:
    files = {stem: write_tensors(folder / f"{stem}.safetensors", group) for stem, group in tensors.items()}
    manifest = dataclasses.replace(manifest, files=files)
    seal_folder(folder, manifest)
    return manifest


def _damage(path: Path, manifest: Manifest, verify: bool) -> Iterator[str]:
    for stem, record in manifest.files.items():
        yield from find_damage(path / f"{stem}.safetensors", record, deep=verify)


def _part_damage(part: Path, expected: str, verify: bool) -> Iterator[str]:
    """Yields what is wrong with a rank's part, whose manifest has the checksum `expected`."""
    if not part.is_dir():
        yield f"{part.name}: missing"
        return
    try:
        manifest = read_manifest(part)
        found = checksum((part / MANIFEST).read_bytes())
    except (CheckpointError, OSError) as error:
        yield f"{part.name}: {error}"
        return
    if found != expected:
        yield f"{part.name}/{MANIFEST}: expected xxh3_128 {expected}, found {found}: of another save"
    else:
        yield from (f"{part.name}/{sentence}" for sentence in _damage(part, manifest, verify))


def _write_text(path: Path, text: bytes) -> None:
    with durable_file(path) as descriptor:
        write_all(descriptor, text)


def _marker(manifest: bytes) -> bytes:
    return f"xxh3_128 {checksum(manifest)} {MANIFEST}\n".encode()


def _hint(path: Path) -> str:
    if not any(path.glob("rank_*")):
        return ""
    return (
        " but parts of single ranks; if each node has its own (run.checkpoint.storage: local), resume with "
        "storage=local, or put all nodes' folders together with merge_checkpoint.py"
    )


def _parse_manifest(path: Path, text: bytes) -> Manifest:
    values = mapping_of(text, path / MANIFEST, halves=True)
    if b"\\u" in text:  # only a configuration's paths may have unpaired surrogates, see `seal_folder`
        try:
            refuse_halves(
                {name: value for name, value in values.items() if name != "config"}, path / MANIFEST
            )
        except ReadError as error:
            raise CheckpointError(str(error)) from error
    version = values.get("version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: {MANIFEST} is of format version {quoted(version)}, this program reads "
            f"{FORMAT_VERSION}; read it with the version of pangu_alpha that wrote it, or a newer one"
        )
    if wrong := _wrong_entries(values):
        raise CheckpointError(
            f"{path / MANIFEST}: not as this program writes it, whatever its checksum: {few(wrong)}"
        )
    try:
        files = {stem: FileRecord.from_mapping(record) for stem, record in values["files"].items()}
    except CheckpointError as error:
        raise CheckpointError(f"{path / MANIFEST}: files: {error}") from error
    return Manifest(**{**values, "files": files})


def _wrong_entries(values: Mapping[str, Any]) -> list[str]:
    """Returns the names of missing, unknown or malformed entries of a manifest; `files` only as a whole."""
    wrong = [*(values.keys() - _KINDS.keys()), *(_NEEDED - values.keys())]
    wrong += [name for name in values.keys() & _KINDS.keys() if not isinstance(values[name], _KINDS[name])]
    if wrong:
        return sorted(shown_name(name, 80) for name in wrong)
    wrong += [name for name in ("step", "samples") if not are_sizes([values[name]])]
    slices, config, parts = values.get("slices", {}), values["config"], values.get("parts", {})
    # Names of files and folders must not lead out of the checkpoint.
    names = (*values["files"], *parts)
    wrong += [quoted(name) for name in names if Path(name).name != name or name == ".." or "\0" in name]
    wrong += [
        f"parts.{shown_name(name, 80)}" for name, digest in parts.items() if not isinstance(digest, str)
    ]
    wrong += [f"config.{key}" for key in ("model", "parallel") if not isinstance(config.get(key, {}), dict)]
    for stem, group in slices.items():
        if not isinstance(group, dict) or not all(map(_is_slice, group.values())):
            wrong.append(f"slices.{shown_name(stem, 80)}")
    return wrong


def _is_slice(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"start", "shape"}:
        return False
    start, shape = value["start"], value["shape"]
    return are_sizes(start) and is_shape(shape) and len(start) == len(shape)


def _check_plain(values: Mapping[str, Any]) -> None:
    # repr also distinguishes -0.0 from 0.0, tuples from lists, and the key 1 from "1"
    assert repr(json.loads(json.dumps(values))) == repr(values), f"not plain JSON data: {values}"
    state = values["state"]
    assert repr(finite(state)) == repr(state), f"not plain JSON data, which has no NaN: {state}"


def _explain(error: OSError, path: Path, needed: int) -> str:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror} ({error.filename or path.parent})"
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(folder).free
    return (
        f"{error.strerror}: {needed:,} bytes needed, {free:,} free on the disk of {folder}; earlier "
        "checkpoints are untouched; make room, or lower checkpoint.keep_last"
    )


def _fits(expected: Spec, found: Spec) -> bool:
    types = {_type(spec[1]) for spec in (expected, found) if spec[1] is not None}
    return tuple(expected[0]) == tuple(found[0]) and len(types) < 2


def _tensor(name: str, specs: Mapping[str, Spec], key: str | None = None) -> str:
    shape, dtype = specs[name if key is None else key]
    return " ".join(filter(None, [shown_name(name), str(list(shape)), dtype and _type(dtype)]))


def _type(dtype: Any) -> str:
    """Returns numpy's name of a type, or "bfloat16", which numpy lacks."""
    return dtype if isinstance(dtype, str) and dtype == "bfloat16" else np.dtype(dtype).name
