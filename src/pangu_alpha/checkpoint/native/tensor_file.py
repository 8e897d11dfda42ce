"""One safetensors file: written and flushed with checksums computed on the way, and mapped without a copy.

Knows names, shapes, types and bytes, but neither models nor folders. The file is written here and not by the
safetensors library, so that hashing, writing and flushing take a single pass over the memory.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from pangu_alpha.checkpoint.errors import CheckpointError, UnclearError
from pangu_alpha.checkpoint.untrusted import are_sizes, check_file, is_shape, mapping_of, shape_text
from pangu_alpha.files.shown import quoted, shown_name
from pangu_alpha.files.writing import durable_file, write_all

__all__ = [
    "CheckpointError", "Extent", "FileRecord", "TensorRecord", "Tensors", "UnclearError", "are_sizes",
    "checksum", "file_bytes", "find_damage", "header_of", "locate_tensors", "map_tensors", "read_metadata",
    "write_tensors",
]  # fmt: skip

Tensors = Mapping[str, np.ndarray]

# https://huggingface.co/docs/safetensors#format; bfloat16 and the float8 types have no numpy counterpart
_CODES = {
    np.dtype(name): code
    for name, code in {
        "float64": "F64", "float32": "F32", "float16": "F16", "bool": "BOOL",
        "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
        "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
    }.items()
}  # fmt: skip
_DTYPES = {code: dtype for dtype, code in _CODES.items()}
_METADATA = "__metadata__"  # the only key of a header that is not a tensor's name
_NAMES = {code: dtype.name for code, dtype in _DTYPES.items()} | {"BF16": "bfloat16"}
_WIDTHS = {code: dtype.itemsize for code, dtype in _DTYPES.items()} | {"BF16": 2}
# Bytes of a header; the safetensors library's MAX_HEADER_SIZE. A single flipped bit in the stored length
# must not make us allocate the memory of the whole file.
_MOST_HEADER = 100_000_000
_CHUNK = 4 << 20  # bytes; small enough to stay in the cache between hashing and writing


@dataclass(frozen=True)
class TensorRecord:
    """A manifest's record of one stored tensor.

    Args:
        dtype: numpy's name of the type.
        checksum: xxh3_128 of the bytes, hexadecimal.
    """

    shape: tuple[int, ...]
    dtype: str
    checksum: str


@dataclass(frozen=True)
class FileRecord:
    """A manifest's record of one file.

    Args:
        bytes: Size of the file.
        header: xxh3_128 of the header, including the length in front of it; hexadecimal.
        tensors: Records by tensor name.
    """

    bytes: int
    header: str
    tensors: Mapping[str, TensorRecord]

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> FileRecord:
        """Makes a record from its JSON form, that of `dataclasses.asdict`.

        Raises:
            CheckpointError: The mapping does not have that form.
        """
        if not _is_record(values):
            raise CheckpointError(f"no record of a file: {quoted(values, 200)}")
        tensors = {
            name: TensorRecord(tuple(entry["shape"]), entry["dtype"], entry["checksum"])
            for name, entry in values["tensors"].items()
        }
        return cls(values["bytes"], values["header"], tensors)


class Extent(NamedTuple):
    """Where a stored tensor lies in its file.

    Args:
        dtype: numpy's name of the type, or "bfloat16", which numpy lacks.
        offset: Position of the first byte, from the start of the file.
        bytes: Number of bytes.
    """

    shape: tuple[int, ...]
    dtype: str
    offset: int
    bytes: int


def checksum(data: bytes) -> str:
    """Returns the hexadecimal xxh3_128 of `data`."""
    return xxhash.xxh3_128_hexdigest(data)


def file_bytes(tensors: Tensors) -> int:
    """Returns the size of the file that `write_tensors` would write. Unit: bytes."""
    return len(_header(tensors)) + sum(array.nbytes for array in tensors.values())


def write_tensors(path: Path, tensors: Tensors) -> FileRecord:
    """Writes a new safetensors file and flushes it; at most one strided tensor is copied at a time.

    Raises:
        CheckpointError: The format has no name for a tensor's type.
        OSError: The file exists, or the disk does not accept it.
    """
    header = _header(tensors)
    records = {}
    with durable_file(path) as descriptor:
        write_all(descriptor, header)
        for name in _order(tensors):
            array = tensors[name]
            digest = xxhash.xxh3_128()
            for chunk in _chunks(array):
                digest.update(chunk)
                write_all(descriptor, chunk)
            records[name] = TensorRecord(array.shape, array.dtype.name, digest.hexdigest())
    return FileRecord(file_bytes(tensors), checksum(header), records)


def map_tensors(path: Path) -> dict[str, np.ndarray]:
    """Maps every tensor of a safetensors file into memory; pages are read when they are used.

    Returns:
        Arrays over the file; writing into one changes the process's private copy, never the file.

    Raises:
        CheckpointError: The file is truncated, is not safetensors, or has a type that numpy lacks.
        OSError: The file cannot be read.
    """
    extents = locate_tensors(path)
    data = np.memmap(path, np.uint8, mode="c").view(np.ndarray)
    arrays = {}
    for name, (shape, dtype, offset, size) in extents.items():
        if dtype == "bfloat16":
            raise CheckpointError(f"{path}: {shown_name(name)}: type BF16 is not one of {', '.join(_DTYPES)}")
        arrays[name] = data[offset : offset + size].view(dtype).reshape(shape)
    return arrays


def locate_tensors(path: Path) -> dict[str, Extent]:
    """Finds where every tensor of a safetensors file lies, from the header alone; includes types numpy lacks.

    Raises:
        CheckpointError: The file is truncated, is not safetensors, has an unknown type, or assigns the same
            bytes to two tensors.
        OSError: The file cannot be read.
    """
    with open(check_file(path), "rb", buffering=0) as file:
        raw = _read_header(file)
        size = os.fstat(file.fileno()).st_size - len(raw)
    found = {}
    for name, entry in _parse_header(path, raw).items():
        code, (start, end) = entry["dtype"], entry["data_offsets"]
        if code not in _NAMES:
            raise CheckpointError(
                f"{path}: {shown_name(name)}: type {shown_name(code, 80)} is not one of {', '.join(_NAMES)}"
            )
        if end - start != _WIDTHS[code] * math.prod(entry["shape"]) or not 0 <= start <= end <= size:
            raise CheckpointError(
                f"{path}: {shown_name(name)}: bytes {start} to {end} of {size} are not its data"
            )
        found[name] = Extent(tuple(entry["shape"]), _NAMES[code], len(raw) + start, end - start)
    _refuse_overlaps(path, found)
    return found


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the metadata texts in the header of a safetensors file.

    Raises:
        CheckpointError: The file is truncated or not safetensors.
        OSError: The file cannot be read.
    """
    with open(check_file(path), "rb", buffering=0) as file:
        found = _load_header(path, _read_header(file)).get(_METADATA)
    return {} if found is None else found


def header_of(specs: Mapping[str, tuple[Sequence[int], Any]]) -> tuple[bytes, dict[str, int]]:
    """Returns the header of a file whose tensors need not exist yet.

    Args:
        specs: Shape and type by name.

    Returns:
        The header's bytes, and the offset in the file at which each tensor begins.
    """
    blank = {name: np.broadcast_to(np.empty((), dtype), shape) for name, (shape, dtype) in specs.items()}
    header, begins = _header(blank), {}
    place = len(header)
    for name in _order(blank):
        begins[name] = place
        place += blank[name].nbytes
    return header, begins


def find_damage(path: Path, record: FileRecord, deep: bool) -> Iterator[str]:
    """Compares a file with its record, reading each byte at most once.

    Args:
        record: What `write_tensors` returned for the file.
        deep: Also read and hash the tensors; otherwise only size and header are compared.

    Yields:
        One sentence for every difference: file, tensor, expected and actual value.
    """
    try:
        size = check_file(path).stat().st_size
        if size != record.bytes:
            yield f"{path.name}: expected {record.bytes} bytes, found {size}"
            return
        with open(path, "rb", buffering=0) as file:
            raw = _read_header(file)
            if checksum(raw) != record.header:
                yield f"{path.name}: header: expected xxh3_128 {record.header}, found {checksum(raw)}"
            elif deep:
                entries = _parse_header(path, raw)
                if entries.keys() != record.tensors.keys():
                    yield f"{path.name}: header: it has other tensors than the manifest says"
                    return
                yield from _find_flips(file, path.name, entries, record)
    except OSError as error:
        yield f"{path.name}: cannot be read ({error.strerror})"
    except CheckpointError as error:
        yield str(error)


def _find_flips(file: Any, where: str, entries: Mapping[str, Any], record: FileRecord) -> Iterator[str]:
    # Read, not mapped: a bad sector then raises OSError, whereas a mapping would kill the process (SIGBUS).
    buffer = memoryview(bytearray(_CHUNK))
    for name in sorted(entries, key=lambda name: entries[name]["data_offsets"]):
        start, end = entries[name]["data_offsets"]
        digest = xxhash.xxh3_128()
        while start < end and (count := file.readinto(buffer[: end - start])):
            digest.update(buffer[:count])
            start += count
        expected, found = record.tensors[name].checksum, digest.hexdigest()
        if found != expected:
            yield f"{where}: {name}: expected xxh3_128 {expected}, found {found}"


def _order(tensors: Tensors) -> list[str]:
    """Returns names with the widest types first, so that every tensor is aligned to its item size."""
    return sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))


def _header(tensors: Tensors) -> bytes:
    """Returns the header length (uint64, little-endian), then JSON padded with blanks to 8 bytes."""
    entries, start = {}, 0
    for name in _order(tensors):
        array = tensors[name]
        if array.dtype not in _CODES:
            known = ", ".join(dtype.name for dtype in _CODES)
            raise CheckpointError(
                f"{name}: type {array.dtype.str} cannot be stored; cast it to one of {known}"
            )
        end = start + array.nbytes
        entries[name] = {"dtype": _CODES[array.dtype], "shape": array.shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    assert len(text) <= _MOST_HEADER, f"a header of {len(text)} bytes: nobody would read it"
    return len(text).to_bytes(8, "little") + text


def _chunks(array: np.ndarray) -> Iterator[memoryview]:
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    for start in range(0, len(data), _CHUNK):
        yield data[start : start + _CHUNK]


def _read_header(file: Any) -> bytes:
    """Reads the header with the length in front of it; the length alone if it exceeds the limit."""
    raw = file.read(8)
    length, rest = int.from_bytes(raw, "little"), os.fstat(file.fileno()).st_size - 8
    return raw + (file.read(max(0, min(length, rest))) if length <= _MOST_HEADER else b"")


def _load_header(path: Path, raw: bytes) -> dict[str, Any]:
    """Parses the header's JSON, including metadata."""
    length = int.from_bytes(raw[:8], "little")
    if length > _MOST_HEADER:
        raise _foreign(path, f"its header of {length:,} bytes is beyond the format's {_MOST_HEADER:,}")
    if len(raw) < 8 or len(raw) != 8 + length:
        raise _foreign(path, "cut short")
    try:
        values = mapping_of(raw[8:], "its header")
    except CheckpointError as error:
        raise _foreign(path, str(error)) from error
    texts = {} if values.get(_METADATA) is None else values[_METADATA]
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise _foreign(path, f"its metadata is no mapping of texts: {quoted(texts, 200)}")
    return values


def _foreign(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: not a safetensors file ({reason})")


def _parse_header(path: Path, raw: bytes) -> dict[str, Any]:
    """Returns the header's entries of tensors."""
    entries = _load_header(path, raw)
    entries.pop(_METADATA, None)
    for name, entry in entries.items():
        if not _is_entry(entry):
            raise _foreign(path, f"its header says {quoted(entry, 200)} of {quoted(name, 200)}")
        if not is_shape(entry["shape"]):
            raise _foreign(path, f"{quoted(name, 200)} has the shape {shape_text(entry['shape'])}")
    return entries


def _refuse_overlaps(path: Path, extents: Mapping[str, Extent]) -> None:
    end, before = 0, ""
    for name, extent in sorted(extents.items(), key=lambda item: item[1].offset):
        if extent.bytes:
            if extent.offset < end:
                raise _foreign(path, f"{shown_name(before)} and {shown_name(name)} share bytes")
            end, before = extent.offset + extent.bytes, name


def _is_entry(entry: Any) -> bool:
    """Whether an entry of a header has the form that the format requires."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    places: Any = entry.get("data_offsets")
    return are_sizes(entry.get("shape")) and are_sizes(places) and len(places) == 2


def _is_record(values: Any) -> bool:
    """Whether a mapping has the form of `FileRecord`."""
    if not isinstance(values, dict) or not isinstance(values.get("tensors"), dict):
        return False
    entries = values["tensors"].values()
    return (
        are_sizes([values.get("bytes")])
        and isinstance(values.get("header"), str)
        and all(isinstance(entry, dict) and is_shape(entry.get("shape")) for entry in entries)
        and all(entry.get("dtype") in _NAMES.values() for entry in entries)
        and all(isinstance(entry.get("checksum"), str) for entry in entries)
    )
