"""One checkpoint: a folder of safetensors files, manifest.json and the marker COMPLETE, whole or absent.

Knows how one folder is written, verified and read, and nothing of the others in a run (see store.py).
Every byte is covered: tensors and headers by the manifest, the manifest by the marker.
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
_MARGIN = 1 << 20  # bytes; manifest, marker and the file system's own tables

# What JSON gives of each field of Manifest.
_KINDS: Mapping[str, Any] = {
    "step": int, "samples": int, "config": dict, "tokenizer": str | None, "state": dict, "kind": str,
    "files": dict, "slices": dict, "parts": dict, "attempt": str, "version": int,
}  # fmt: skip
_NEEDED = {"step", "samples", "config", "files"}

Spec = tuple[Sequence[int], Any]


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says about itself, so that no other file is needed to use it.

    Args:
        step: Optimizer steps done.
        samples: Position in the data: windows consumed, whatever the batch size was.
        config: The whole configuration of the run, as nested plain mappings.
        tokenizer: Digest of the vocabulary; None where the run has none.
        state: The rest of the training state (loss scale, counters, running means): plain mappings, lists,
            finite numbers and texts. Numbers come back bit for bit.
        kind: What the files together are: "training" one process's weights and optimizer, "weights" the
            model alone, "slices" the parts of all ranks of a plan, "part" those of one of them.
        files: Stem of each file and what is in it; filled in by `write_checkpoint`.
        slices: In a part, by stem and name: where the slice begins in the whole, and the whole's shape
            without padding, {"start": [...], "shape": [...]}.
        parts: In "slices", the folder of each rank's part and the checksum of its manifest.
        attempt: Which start of the job wrote it, where several processes do: parts of different starts are
            never put together.
        version: Of the format.
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
    """A checkpoint that was found whole.

    Args:
        path: Its folder.
        manifest: What it says about itself.
    """

    path: Path
    manifest: Manifest

    def load(self, stem: str) -> dict[str, np.ndarray]:
        """Maps the tensors of one file; pages are read when they are used, writes stay in the process.

        Args:
            stem: The file's name without its ending, such as "model" or "optimizer".

        Raises:
            CheckpointError: There is no such file.
        """
        self._record(stem)
        return map_tensors(self.path / f"{stem}.safetensors")

    def specs(self, stem: str) -> dict[str, Spec]:
        """Shape and type of every tensor of one file, from the manifest alone; see `compare_tensors`."""
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
    """Writes a checkpoint so that a kill at any moment leaves the whole of it or none of it.

    Args:
        path: The folder to make.
        tensors: Arrays by name for every file's stem, say {"model": ..., "optimizer": ...}.
        manifest: What to say about them; its `files` are filled in.
        aside: New name of the folder that lies at `path`, given just before the new one takes its place.

    Outputs:
        The manifest as written.

    Raises:
        CheckpointError: The folder exists and `aside` is None, a type cannot be stored, or the disk is full
            or does not take it. Nothing is left behind.
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
    """Writes the manifest and, when all else is on the disk, the marker that makes the folder a checkpoint.

    Raises:
        OSError: The disk does not take them.
    """
    # in ASCII, for a configuration's paths may hold bytes that are no UTF-8; a NaN in it is null
    text = json.dumps(finite(dataclasses.asdict(manifest)), indent=1, allow_nan=False).encode()
    _write_text(folder / MANIFEST, text)
    sync_folder(folder)  # on a file system that reorders, the marker must not be there before the rest
    _write_text(folder / MARKER, _marker(text))


def read_checkpoint(
    path: str | Path, verify: bool = True, parts: Collection[str] | None = None
) -> Checkpoint:
    """Opens a checkpoint after making sure that it is whole.

    Args:
        path: Its folder.
        verify: Read every byte and compare the checksums. Otherwise the marker, the manifest, the sizes and
            the headers of the files are compared: enough where every byte has been verified just before.
        parts: Of the ranks' parts look at these alone, as other processes look at the others; None at all.

    Raises:
        CheckpointError: It is missing, unfinished, of a newer format, cut or flipped; all damage is listed
            as file, tensor, expected and found.
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
    """What a finished checkpoint, or a rank's finished part, says about itself; its files are not looked at.

    Raises:
        CheckpointError: It is missing, unfinished, damaged or of a newer format.
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
    """Makes sure that the tensors found are exactly those a model needs.

    Args:
        expected: Shape and type by name; a type of None accepts every type.
        found: The same of what there is.
        where: Where it was found, for the error.

    Raises:
        CheckpointError: Lists every missing, extra, mis-shaped and mistyped tensor.
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
    """What is wrong with a rank's part, whose manifest has the checksum `expected`."""
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
    if b"\\u" in text:  # a configuration's paths may hold halves, see `seal_folder`; nothing else does
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
    """Names of a manifest's entries that are missing, unknown or of another form; `files` only as a whole."""
    wrong = [*(values.keys() - _KINDS.keys()), *(_NEEDED - values.keys())]
    wrong += [name for name in values.keys() & _KINDS.keys() if not isinstance(values[name], _KINDS[name])]
    if wrong:
        return sorted(shown_name(name, 80) for name in wrong)
    wrong += [name for name in ("step", "samples") if not are_sizes([values[name]])]
    slices, config, parts = values.get("slices", {}), values["config"], values.get("parts", {})
    # Names of files and folders: none leads out of the checkpoint.
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
    # repr also tells -0.0 from 0.0, a tuple from a list, and 1 from "1" as a key
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
    """numpy's name of a type; bfloat16 it does not know."""
    return dtype if isinstance(dtype, str) and dtype == "bfloat16" else np.dtype(dtype).name
