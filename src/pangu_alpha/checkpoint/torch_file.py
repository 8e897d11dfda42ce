"""A file of torch.save without torch: which tensor lies at which bytes. Runs no code that the file names.

The pickle inside is read by an Unpickler that knows a fixed list of names and gives inert objects for them.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pangu_alpha.checkpoint.pieces import Piece, Stored, whole
from pangu_alpha.checkpoint.tensor_file import CheckpointError

# torch's storage classes -> numpy's name of the type, or "bfloat16"
_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
    "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
_REBUILDERS = ("_rebuild_tensor", "_rebuild_tensor_v2")
_NUMPY = ("_reconstruct", "scalar")
# What else lies in such files beside the weights: arguments of the program, types, states of generators.
_INERT = {
    ("argparse", "Namespace"), ("torch", "Size"), ("torch", "device"), ("_codecs", "encode"),
    ("numpy", "dtype"), ("numpy", "ndarray"),
    *(("torch", name) for name in ("float16", "float32", "float64", "bfloat16", "int32", "int64", "uint8")),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in _NUMPY),
}  # fmt: skip
# The magic number 0x1950A86A20F9469CFC6C as a pickle, the first bytes of files of torch before 1.6.
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
# What zipfile raises for damaged, encrypted and unknown archives.
_ZIP_ERRORS = (
    OSError, zipfile.BadZipFile, RuntimeError, ValueError, OverflowError, EOFError, zlib.error, struct.error,
)  # fmt: skip
# What pickle's interpreter, in Python, raises for bytes that are no pickle.
_PICKLE_ERRORS = (
    pickle.UnpicklingError, LookupError, AttributeError, TypeError, ValueError, EOFError, AssertionError,
    struct.error, ArithmeticError, NameError, MemoryError, RecursionError,
)  # fmt: skip
_MOST_PICKLE = 256 << 20  # bytes; that of a checkpoint has some 200 a tensor


class TorchTensor(NamedTuple):
    """A tensor of a torch file.

    Args:
        file: The file.
        shape: Its shape.
        dtype: numpy's name of its type, or "bfloat16".
        offset: Of its first byte in the file.
        bytes: Their number.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str
    offset: int
    bytes: int

    def stored(self, label: str = "") -> Stored:
        """The tensor as a whole of one piece."""
        where = ((self.offset, self.bytes),)
        return Stored(self.shape, (Piece(whole(self.shape), self.file, where, self.dtype, label=label),))


class Inert:
    """Stands for an object of the file that is no tensor; keeps what it was made of, does nothing."""

    def __new__(cls, *arguments: Any, **_: Any) -> Inert:
        made = super().__new__(cls)
        made.arguments, made.state = arguments, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def extend(self, _: Any) -> None:
        """Where pickle appends to it as to a list."""


def is_torch_file(path: Path) -> bool:
    """Whether a file is one of torch.save, of the zip form or of the older one."""
    try:
        with open(path, "rb") as file:
            if file.read(len(_LEGACY)) == _LEGACY:
                return True
        return zipfile.is_zipfile(path) and any(_is_pickle(name) for name in _names(path))
    except _ZIP_ERRORS:
        return False


def read_torch_file(path: Path) -> Any:
    """What torch.load would give, with TorchTensor for tensors and Inert for all but plain values.

    Raises:
        CheckpointError: It is not such a file, of the form before torch 1.6, damaged, names something that
            is not on the list, or holds a tensor that is not contiguous.
    """
    path = Path(path)
    with open(path, "rb") as file:
        if file.read(len(_LEGACY)) == _LEGACY:
            raise CheckpointError(
                f"{path}: written by torch before 1.6, as a bare pickle, which is not read; write it anew: "
                "torch.save(torch.load(OLD, weights_only=True), NEW)"
            )
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            return _Archive(path, archive, file).load()
    except CheckpointError:
        raise
    except _ZIP_ERRORS as error:
        raise CheckpointError(f"{path}: no file of torch.save, or cut short ({error})") from error


def damaged_entries(path: Path) -> Iterator[str]:
    """Reads a torch file whole and yields a sentence for the first entry that its zip checksum refutes."""
    try:
        with zipfile.ZipFile(path) as archive:
            if bad := archive.testzip():
                yield f"{path.name}: {bad}: the zip's CRC-32 does not fit its bytes"
    except _ZIP_ERRORS as error:
        yield f"{path.name}: {error}"


def flatten(value: Any, prefix: str = "") -> dict[str, TorchTensor]:
    """Tensors of nested mappings under their keys joined by dots."""
    if isinstance(value, TorchTensor):
        return {prefix: value}
    found: dict[str, TorchTensor] = {}
    if isinstance(value, dict):
        for key, inner in dict.items(value):
            found |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


class _Archive:
    """The zip around a pickle and the storages it refers to."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, file: Any) -> None:
        self._path, self._archive, self._file = path, archive, file
        pickles = [name for name in archive.namelist() if _is_pickle(name)]
        if not pickles:
            raise CheckpointError(f"{path}: a zip without data.pkl: no file of torch.save")
        self._pickle = pickles[0]
        self._folder = self._pickle.removesuffix("data.pkl")
        self._places: dict[str, tuple[int, int]] = {}

    def load(self) -> Any:
        """The value of the pickle."""
        order = self._folder + "byteorder"
        if order in self._archive.namelist() and self._archive.read(order) != b"little":
            raise CheckpointError(
                f"{self._path}: its numbers are big-endian; write it on a little-endian machine"
            )
        if self._archive.getinfo(self._pickle).file_size > _MOST_PICKLE:
            raise CheckpointError(f"{self._path}: its pickle is larger than any checkpoint's")
        data = self._archive.read(self._pickle)
        try:
            return _Unpickler(io.BytesIO(data), self).load()
        except CheckpointError:
            raise
        except _PICKLE_ERRORS as error:
            raise CheckpointError(f"{self._path}: its pickle is damaged ({error!r})") from error

    def refuse(self, said: str) -> CheckpointError:
        """An error about this file."""
        return CheckpointError(f"{self._path}: {said}")

    def tensor(self, storage: Any, first: int, shape: Any, strides: Any) -> TorchTensor:
        """A view of a storage, as torch's functions rebuild it."""
        if not isinstance(storage, _Storage):
            raise self.refuse("a tensor of something that is no storage")
        shape, strides = tuple(map(int, shape)), tuple(map(int, strides))
        if not _contiguous(shape, strides):
            raise self.refuse(
                f"a tensor of shape {list(shape)} has strides {list(strides)}; save it contiguous: "
                "torch.save({name: tensor.contiguous(), ...})"
            )
        size = np.dtype("uint16" if storage.dtype == "bfloat16" else storage.dtype).itemsize
        begin, length = self._place(storage.key)
        offset, count = first * size, math.prod(shape) * size
        if first < 0 or offset + count > length:
            raise self.refuse(f"a tensor of shape {list(shape)} exceeds its storage {storage.key!r}")
        return TorchTensor(self._path, shape, storage.dtype, begin + offset, count)

    def _place(self, key: str) -> tuple[int, int]:
        """Offset and length of a storage's bytes in the file."""
        if key not in self._places:
            try:
                info = self._archive.getinfo(f"{self._folder}data/{key}")
            except KeyError as error:
                raise self.refuse(f"has no entry {error}") from error
            if info.compress_type != zipfile.ZIP_STORED:
                raise self.refuse(f"{info.filename} is compressed; torch stores its tensors as they are")
            self._file.seek(info.header_offset)
            head = self._file.read(30)  # of a zip's entry; name and extra field follow (APPNOTE 4.3.7)
            names = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
            self._places[key] = info.header_offset + 30 + names, info.file_size
        return self._places[key]


# Named tuples, because a pickle can set the attributes of any object that has a __dict__.
class _Storage(NamedTuple):
    key: str
    dtype: str


class _StorageType(NamedTuple):
    dtype: str


class _Unpickler(pickle._Unpickler):  # the one in Python: damaged bytes cannot reach memory through it
    """Makes plain values, TorchTensor and Inert: `find_class` is its only way to anything else."""

    def __init__(self, data: io.BytesIO, archive: _Archive) -> None:
        super().__init__(data)
        self._archive = archive

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        if module == "torch._utils" and name in _REBUILDERS:
            return self._rebuild
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if (module, name) in _INERT:
            return type(name, (Inert,), {})
        raise self._archive.refuse(
            f"its pickle names {module}.{name}, which is not needed for weights; nothing was run; load it "
            "where you trust it and save the weights alone: torch.save(state_dict, NEW)"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage, key, *_ = pid
        if kind != "storage" or not isinstance(storage, _StorageType):
            raise self._archive.refuse(f"refers to {pid!r}, which is no storage of torch")
        return _Storage(str(key), storage.dtype)

    def _rebuild(self, storage: Any, first: int, shape: Any, strides: Any, *_: Any) -> TorchTensor:
        return self._archive.tensor(storage, first, shape, strides)


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


def _is_pickle(name: str) -> bool:
    return name == "data.pkl" or name.endswith("/data.pkl")


def _names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()
