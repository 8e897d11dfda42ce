"""MindSpore's .ckpt files (checkpoint.proto), located by offsets and written, without MindSpore or pickles.

A file is a sequence of messages, each with a name, dimensions, a type and bytes; a tensor of more than
512 MB takes several messages.
"""

from __future__ import annotations

import dataclasses
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.checkpoint.foreign.mindspore.protobuf_wire import (
    FileBytes,
    WireError,
    length_field,
    length_head,
    number_field,
)
from pangu_alpha.checkpoint.moving.copying import Slot, TargetFile
from pangu_alpha.checkpoint.moving.reading import stored_dtype
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.renaming import as_source
from pangu_alpha.checkpoint.tensors import Piece, Source, Stored, whole
from pangu_alpha.checkpoint.untrusted import MOST_AXES, check_file, few, is_shape, shape_text
from pangu_alpha.files.shown import quoted, shown_name

# checkpoint.proto of MindSpore 2.9: Checkpoint.value = 1; Value.tag = 1, .tensor = 2, .maptensor = 3;
# TensorProto.dims = 1, .tensor_type = 2, .tensor_content = 3
_TYPES = {
    "Float32": "float32", "Float16": "float16", "BFloat16": "bfloat16", "Float64": "float64", "Bool": "bool",
    "Int8": "int8", "Int16": "int16", "Int32": "int32", "Int64": "int64",
    "UInt8": "uint8", "UInt16": "uint16", "UInt32": "uint32", "UInt64": "uint64",
}  # fmt: skip
_NAMES = {ours: theirs for theirs, ours in _TYPES.items()}
_TEXT = "str"  # stored as UTF-32, little-endian
_CRC_MARK, _CRC_BYTES = b"crc_num", 17  # what save_checkpoint(crc_check=True) appends: the mark and 10 bytes
_ENCRYPTED = bytes.fromhex("d85e3a7f")  # first bytes of what save_checkpoint(enc_key=...) writes
_LONGEST = 512 << 20  # most bytes of a tensor in one message; MindSpore 2.9 cuts there
_CHUNK = 4 << 20

Info = int | float | bool | str


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A tensor in a file.

    Args:
        dtype: numpy's name of the type, or "bfloat16".
        extents: Offset and length of its bytes, in order. Unit: bytes.
    """

    shape: tuple[int, ...]
    dtype: str
    extents: tuple[tuple[int, int], ...]

    @property
    def stored(self) -> int:
        """Number of bytes that the file has of the tensor."""
        return sum(length for _, length in self.extents)


@dataclass(frozen=True)
class CkptFile:
    """The content of a .ckpt file.

    Args:
        tensors: By name, in the order in which they are stored.
        info: Numbers and texts stored beside them (MindSpore's append_dict): "epoch_num", "step_num", ...
        aside: Names of other entries: map tensors, types that numpy lacks.
    """

    path: Path
    tensors: Mapping[str, FileTensor]
    info: Mapping[str, Info] = field(default_factory=dict)
    aside: tuple[str, ...] = ()


def read_ckpt(path: Path) -> CkptFile:
    """Locates every tensor of a .ckpt file without reading its values.

    If the file ends with a checksum, which MindSpore writes on request, the whole file is read to compare it.

    Raises:
        CheckpointError: The file is truncated, damaged, encrypted, a pickle, or something else altogether.
        OSError: The file cannot be read.
    """
    with open(check_file(path), "rb", buffering=0) as file:
        data = FileBytes(file.fileno())
        _refuse_foreign(path, data)
        end = _without_crc(path, data, file.fileno())
        try:
            values = (_value(data, one.start, one.stop) for one in data.fields(0, end) if one.number == 1)
            return _collect(path, data, values)
        except (WireError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{path}: damaged, or no MindSpore checkpoint ({error}); it has {data.size:,} bytes: compare "
                "with the original and fetch it again"
            ) from error


@dataclass(slots=True)
class _Value:
    """One message of the file."""

    tag: str = ""
    dims: tuple[int, ...] = ()
    type: str | None = None
    start: int = 0
    stop: int = 0


def _refuse_foreign(path: Path, data: FileBytes) -> None:
    head = data.read(0, 8)
    if head.startswith(b"PK") or (head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5"):
        raise CheckpointError(
            f"{path}: a pickle inside a .ckpt (PyTorch writes such files): it could run code, so it is not "
            "opened; a PyTorch checkpoint has a reader of its own that takes it by its folder"
        )
    if head.startswith(_ENCRYPTED):
        raise CheckpointError(
            f"{path}: encrypted; load it in MindSpore with its dec_key and save it again without enc_key"
        )
    if head.startswith(b"\x08"):
        raise CheckpointError(
            f"{path}: a strategy file, which says how a checkpoint is cut, not a checkpoint; give the "
            "checkpoint, and this with --strategy"
        )
    if not head.startswith(b"\x0a"):
        what = "empty" if not data.size else f"begins with {head.hex(' ')}"
        raise CheckpointError(f"{path}: not a MindSpore checkpoint: {what}")


def _without_crc(path: Path, data: FileBytes, descriptor: int) -> int:
    """Returns the end of the messages, after comparing the checksum that follows them, if there is one."""
    trailer = data.read(max(0, data.size - _CRC_BYTES), data.size)
    if not trailer.startswith(_CRC_MARK):
        return data.size
    end, found = data.size - _CRC_BYTES, 0
    for start in range(0, end, _CHUNK):
        found = zlib.crc32(os.pread(descriptor, min(_CHUNK, end - start), start), found)
    expected = int.from_bytes(trailer[len(_CRC_MARK) :], "big")
    if found != expected:
        raise CheckpointError(f"{path}: damaged: expected crc32 {expected:08x}, found {found:08x}")
    return end


def _value(data: FileBytes, start: int, stop: int) -> _Value:
    """Parses one tensor's message.

    Raises:
        WireError: The message has no name. MindSpore always writes one, whereas millions of empty messages
            would fit into a small malicious file.
    """
    value = _Value()
    for one in data.fields(start, stop):
        if one.number == 1:
            value.tag = data.read(one.start, one.stop).decode()
        elif one.number == 2:
            _tensor(data, one.start, one.stop, value)
    if not value.tag:
        raise WireError(f"byte {start}: a tensor without a name")
    return value


def _tensor(data: FileBytes, start: int, stop: int, value: _Value) -> None:
    dims: list[int] = []
    for one in data.fields(start, stop):
        if one.number == 1 and one.value is not None:
            dims.append(one.value)
            if len(dims) > MOST_AXES:
                raise WireError(f"{quoted(value.tag)}: more than {MOST_AXES} dimensions")
        elif one.number == 2:
            value.type = data.read(one.start, one.stop).decode()
        elif one.number == 3:
            value.start, value.stop = one.start, one.stop
    value.dims = tuple(dims)


def _collect(path: Path, data: FileBytes, values: Iterable[_Value]) -> CkptFile:
    tensors: dict[str, FileTensor] = {}
    extents: dict[str, list[tuple[int, int]]] = {}
    info: dict[str, Info] = {}
    aside: dict[str, None] = {}
    last = None
    for value in values:
        dtype = _TYPES.get(value.type or "")
        if value.type == _TEXT:
            info[value.tag] = data.read(value.start, value.stop).decode("utf-32-le").rstrip("\0")
        elif dtype is None:
            aside[value.tag] = None
        elif value.tag in tensors and value.tag != last:
            raise CheckpointError(f"{path}: damaged: {shown_name(value.tag)} is there twice")
        elif not is_shape(value.dims):
            raise CheckpointError(
                f"{path}: damaged: {shown_name(value.tag)} has the shape {shape_text(value.dims)}, which no "
                "memory holds"
            )
        else:
            extents.setdefault(value.tag, []).append((value.start, value.stop - value.start))
            tensors[value.tag] = FileTensor(value.dims, dtype, ())
        last = value.tag
    tensors = {name: dataclasses.replace(one, extents=tuple(extents[name])) for name, one in tensors.items()}
    for name in [name for name, tensor in tensors.items() if tensor.shape in ((), (0,))]:
        tensor = tensors.pop(name)  # a number of the training state; MindSpore 2.9 stores some with shape [0]
        info[name] = _number(path, data, name, tensor)
    _check_sizes(path, tensors)
    return CkptFile(path, tensors, info, tuple(aside))


def _number(path: Path, data: FileBytes, name: str, tensor: FileTensor) -> Info:
    start, length = tensor.extents[0]
    if length != stored_dtype(tensor.dtype).itemsize:
        raise CheckpointError(f"{path}: damaged: {shown_name(name)}: {length} bytes for one {tensor.dtype}")
    raw = data.read(start, start + length)
    if tensor.dtype == "bfloat16":
        return np.frombuffer(b"\0\0" + raw, np.float32)[0].item()
    return np.frombuffer(raw, tensor.dtype)[0].item()


def _check_sizes(path: Path, tensors: Mapping[str, FileTensor]) -> None:
    for name, tensor in tensors.items():
        needed = math.prod(tensor.shape) * stored_dtype(tensor.dtype).itemsize
        if needed != tensor.stored:
            raise CheckpointError(
                f"{path}: damaged: {shown_name(name)}: {tensor.stored:,} bytes, {needed:,} are needed for "
                f"{tensor.dtype} {list(tensor.shape)}"
            )


def ckpt_target(path: Path, slots: Iterable[Slot], step: int = 0) -> TargetFile:
    """Lays out a .ckpt file of slots under their labels, and fills in their extents.

    Args:
        path: Relative to the target's folder.
        slots: In the order in which they are to be stored.
        step: Stored as "step_num" unless it is 0.
    """
    literals, placed, end = [], [], 0
    for slot in slots:
        extents, size = [], stored_dtype(slot.dtype).itemsize * slot.box.size
        for start in range(0, max(size, 1), _LONGEST):
            length = min(_LONGEST, size - start)
            head = _head(slot.label, slot.stored_shape, slot.dtype, length)
            literals.append((end, head))
            extents.append((end + len(head), length))
            end += len(head) + length
        placed.append(dataclasses.replace(slot, extents=tuple(extents)))
    if step:
        number = _head("step_num", (), "int64", 8) + step.to_bytes(8, "little")
        literals.append((end, number))
        end += len(number)
    return TargetFile(path, end, tuple(literals), tuple(placed))


def _head(name: str, shape: Iterable[int], dtype: str, length: int) -> bytes:
    """Returns what precedes the bytes of a tensor, or of a part of one, in the file."""
    dims = b"".join(number_field(1, size) for size in shape)
    tensor = dims + length_field(2, _NAMES[dtype].encode()) + length_head(3, length)
    value = length_field(1, name.encode()) + length_head(2, len(tensor) + length)
    return length_head(1, len(value) + len(tensor) + length) + value + tensor


def recognises(path: Path) -> bool:
    """Whether a path is a .ckpt file, or a folder with exactly one."""
    return _only_file(path) is not None


def open_(path: Path, options: OpenOptions) -> Source:
    """Opens a merged checkpoint in one .ckpt file, embeddings included.

    Raises:
        CheckpointError: The file is damaged, not what it seems, or not a complete PanGu-alpha.
        ConfigError: The model that the user names does not exist.
    """
    file = read_ckpt(_only_file(path) or path)
    stored = {
        name: Stored(one.shape, (Piece(whole(one.shape), file.path, one.extents, one.dtype),))
        for name, one in file.tensors.items()
    }
    notes = [f"left aside, of no plain type: {few(file.aside)}"] if file.aside else []
    types = ", ".join(sorted({one.dtype for one in file.tensors.values()}))
    form = f"MindSpore checkpoint in one .ckpt file, {types}"
    return as_source(path, form, stored, options, file.info, notes)


def _only_file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix == ".ckpt" else None
    if not path.is_dir():
        return None
    files = [one for one in path.glob("*.ckpt") if "strategy" not in one.name and not one.is_dir()]
    return files[0] if len(files) == 1 else None
