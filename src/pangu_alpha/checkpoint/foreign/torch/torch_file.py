"""Reads files of torch.save without torch: which tensor lies at which bytes. Runs no code that a file names.

Knows the zip around the pickle and the numbers; torch_pickle reads the pickle.
"""

from __future__ import annotations

import math
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.checkpoint.foreign.torch.torch_pickle import PICKLE_ERRORS, Storage, Unpickler
from pangu_alpha.checkpoint.tensors import Piece, Stored, whole
from pangu_alpha.checkpoint.untrusted import are_sizes, check_file, is_shape, shape_text
from pangu_alpha.files.shown import quoted, shown

# The magic number 0x1950A86A20F9469CFC6C as a pickle, the first bytes of files of torch before 1.6.
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
# Raised by zipfile for damaged, encrypted and unknown archives.
_ZIP_ERRORS = (
    OSError, zipfile.BadZipFile, RuntimeError, ValueError, OverflowError, EOFError, zlib.error, struct.error,
)  # fmt: skip
# Python's objects take up to some 80 bytes for one byte of the pickle, which the zip may have compressed a
# thousandfold. So the pickle's size is limited, absolutely and by a share of the file's size.
_SMALL_PICKLE, _SHARE, _MOST_PICKLE = 1 << 20, 64, 16 << 20  # bytes; a checkpoint's has some 200 a tensor
_DEEPEST = 50  # mappings in mappings
_MOST_LETTERS = 4 << 20  # of all names together, joined by dots
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile decompresses the others without a bound


class TorchTensor(NamedTuple):
    """A tensor of a torch file.

    Args:
        dtype: numpy's name of the type, or "bfloat16".
        offset: Position of its first byte in the file.
        bytes: Number of bytes.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str
    offset: int
    bytes: int

    def stored(self, label: str = "") -> Stored:
        """Returns the tensor as a single piece."""
        where = ((self.offset, self.bytes),)
        return Stored(self.shape, (Piece(whole(self.shape), self.file, where, self.dtype, label=label),))


def is_torch_file(path: Path) -> bool:
    """Whether torch.save wrote a file, in the zip form or the older one."""
    try:
        with open(check_file(path), "rb") as file:
            if file.read(len(_LEGACY)) == _LEGACY:
                return True
        return zipfile.is_zipfile(path) and any(_is_pickle(name) for name in _names(path))
    except _ZIP_ERRORS:
        return False


def read_torch_file(path: Path) -> Any:
    """Returns what torch.load would, with TorchTensor for tensors and Inert for all but plain values.

    Time and memory are bounded by a small multiple of the file's size, whatever the file contains.

    Raises:
        CheckpointError: The file is not of torch.save, is of the form before torch 1.6, or is damaged; or it
            names something that is not on the list, or has a tensor that is not contiguous, or endless
            mappings.
    """
    path = Path(path)
    with open(check_file(path), "rb") as file:
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
        raise CheckpointError(f"{path}: no file of torch.save, or cut short ({shown(error, 300)})") from error


def damaged_entries(path: Path) -> Iterator[str]:
    """Reads a whole torch file and yields a sentence for the first entry that contradicts its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            said, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
            if strange := _strange_entry(archive):
                yield f"{path.name}: {strange}"
            elif said > size + _MOST_PICKLE:  # entries overlap, or decompress without end
                yield f"{path.name}: its entries of {said:,} bytes do not fit a file of {size:,}"
            elif bad := archive.testzip():
                yield f"{path.name}: {bad}: the zip's CRC-32 does not fit its bytes"
    except _ZIP_ERRORS as error:
        yield f"{path.name}: {shown(error, 300)}"


def flatten(value: Any, prefix: str = "") -> dict[str, TorchTensor]:
    """Returns the tensors of nested mappings from `read_torch_file`, with their keys joined by dots."""
    if isinstance(value, TorchTensor):
        return {prefix: value}
    found: dict[str, TorchTensor] = {}
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


class _Archive:
    """The zip file around a pickle and the storages to which it refers."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, file: Any) -> None:
        self._path, self._archive, self._file = path, archive, file
        if strange := _strange_entry(archive):
            raise self.refuse(strange)
        pickles = [name for name in archive.namelist() if _is_pickle(name)]
        if not pickles:
            raise CheckpointError(f"{path}: a zip without data.pkl: no file of torch.save")
        self._pickle = pickles[0]
        self._folder = self._pickle.removesuffix("data.pkl")
        self._places: dict[str, tuple[int, int]] = {}

    def load(self) -> Any:
        """Returns the value of the pickle."""
        order = self._folder + "byteorder"
        if order in self._archive.namelist() and self._archive.open(order).read(9) != b"little":
            raise self.refuse("its numbers are big-endian; write it on a little-endian machine")
        size = self._archive.getinfo(self._pickle).file_size
        if size > min(_MOST_PICKLE, _SMALL_PICKLE + os.fstat(self._file.fileno()).st_size // _SHARE):
            raise self.refuse(f"its pickle of {size:,} bytes is beyond any weights'; save the weights alone")
        with self._archive.open(self._pickle) as entry:
            data = entry.read(size)  # a bare `read` would decompress more than the stated size
        try:
            value = Unpickler(data, self.tensor, self.refuse).load()
        except CheckpointError:
            raise
        except PICKLE_ERRORS as error:
            raise self.refuse(f"its pickle is damaged ({_words(error)})") from error
        self._check_names(value)
        return value

    def _check_names(self, value: Any) -> None:
        """Checks that `flatten` ends soon: a mapping may contain itself, or another one many times."""
        level, letters = [(value, 0)], 0
        for _ in range(_DEEPEST):
            below = []
            for outer, length in level:
                for key, inner in outer.items() if isinstance(outer, dict) else ():
                    below.append((inner, length + 1 + len(str(key))))
                    letters += below[-1][1]
                    if letters > _MOST_LETTERS:
                        raise self.refuse("its mappings hold each other too often: no weights")
            level = below
        if level:
            raise self.refuse(
                f"its mappings are nested deeper than {_DEEPEST}, or hold themselves: no weights"
            )

    def refuse(self, said: str) -> CheckpointError:
        """Returns an error about this file."""
        return CheckpointError(f"{self._path}: {said}")

    def tensor(self, storage: Any, first: int, shape: Any, strides: Any) -> TorchTensor:
        """Returns a view of a storage, as torch's functions rebuild it."""
        if not isinstance(storage, Storage):
            raise self.refuse("a tensor of something that is no storage")
        shape, strides = tuple(shape), tuple(strides)
        if not (is_shape(shape) and are_sizes((first, *strides)) and len(strides) == len(shape)):
            raise pickle.UnpicklingError(f"a tensor of the shape {shape_text(shape)}")
        if not _contiguous(shape, strides):
            raise self.refuse(
                f"a tensor of shape {list(shape)} has strides {list(strides)}; save it contiguous: "
                "torch.save({name: tensor.contiguous(), ...})"
            )
        size = np.dtype("uint16" if storage.dtype == "bfloat16" else storage.dtype).itemsize
        begin, length = self._place(storage.key)
        offset, count = first * size, math.prod(shape) * size
        if offset + count > length:
            raise self.refuse(f"a tensor of shape {list(shape)} exceeds its storage {quoted(storage.key)}")
        return TorchTensor(self._path, shape, storage.dtype, begin + offset, count)

    def _place(self, key: str) -> tuple[int, int]:
        """Returns offset and length of a storage's bytes in the file."""
        if key not in self._places:
            try:
                info = self._archive.getinfo(f"{self._folder}data/{key}")
            except KeyError as error:
                raise self.refuse(f"has no entry {error}") from error
            if info.compress_type != zipfile.ZIP_STORED:
                raise self.refuse(f"{info.filename} is compressed; torch stores its tensors as they are")
            self._file.seek(info.header_offset)
            head = self._file.read(30)  # a zip entry's header; name and extra field follow (APPNOTE 4.3.7)
            names = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
            begin = info.header_offset + 30 + names
            if begin + info.file_size > os.fstat(self._file.fileno()).st_size:
                raise self.refuse(f"{quoted(info.filename)} ends behind the file's end: cut short")
            self._places[key] = begin, info.file_size
        return self._places[key]


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


def _words(error: BaseException) -> str:
    """Returns an error's kind and text, shortened so that huge values in it are never written out."""
    return f"{type(error).__name__}: {quoted(error.args[0] if error.args else '', 150)}"


def _strange_entry(archive: zipfile.ZipFile) -> str | None:
    """Returns the first entry of a zip that is compressed in a way torch does not use."""
    for entry in archive.infolist():
        if entry.compress_type not in _METHODS:
            names = getattr(zipfile, "compressor_names", {})  # not documented
            name = names.get(entry.compress_type, f"method {entry.compress_type}")
            return (
                f"its entry {quoted(entry.filename)} is compressed by {name}; torch stores them as they are"
            )
    return None


def _is_pickle(name: str) -> bool:
    return name == "data.pkl" or name.endswith("/data.pkl")


def _names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()
