"""Files as torch.save writes them, without torch, and checks: for tests of what reads checkpoints."""

from __future__ import annotations

import builtins
import io
import math
import os
import struct
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.tensors import whole
from pangu_alpha.config.model import ModelConfig

ORACLE = ModelConfig(vocab_size=1000, hidden_size=64, num_layers=3, num_heads=4, seq_length=32)
STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "uint8": "ByteStorage"}


@pytest.fixture
def stingy_disk(monkeypatch):
    """A context in which a single write takes so many bytes at most, as a filling disk's or a quota's may."""

    @contextmanager
    def stingy(most):
        write, pwrite, opened = os.write, os.pwrite, builtins.open

        class File(io.FileIO):
            def write(self, data):
                return super().write(memoryview(data)[:most])

        def opening(file, mode="r", buffering=-1, **options):
            raw = buffering == 0 and set(mode) & set("wxa+")
            return File(file, mode) if raw else opened(file, mode, buffering, **options)

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:most]))
            patched.setattr(
                os, "pwrite", lambda descriptor, data, place: pwrite(descriptor, data[:most], place)
            )
            patched.setattr(builtins, "open", opening)
            yield

    return stingy


@pytest.fixture(scope="session")
def write_torch():
    """Writes a zip of nested dicts with arrays, or of a pickle given as it is."""
    return _write


def _write(path: Path, value: Any, pickled: bytes | None = None) -> None:
    storages: list[np.ndarray] = []
    data = pickled or b"\x80\x02" + _dump(value, storages) + b"."
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for number, array in enumerate(storages):
            archive.writestr(f"archive/data/{number}", array.tobytes())
        archive.writestr("archive/version", "3\n")


def _dump(value: Any, storages: list[np.ndarray]) -> bytes:
    if isinstance(value, np.ndarray):
        return _tensor(value, storages)
    if isinstance(value, dict):
        items = (_dump(key, storages) + _dump(inner, storages) + b"s" for key, inner in value.items())
        return b"}" + b"".join(items)
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, tuple):
        return b"(" + b"".join(_dump(inner, storages) for inner in value) + b"t"
    return b"J" + struct.pack("<i", value)


def _tensor(array: np.ndarray, storages: list[np.ndarray]) -> bytes:
    storages.append(array)
    strides = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
    storage = f"ctorch\n{STORAGES[array.dtype.name]}\n".encode()
    place = (_dump(word, storages) for word in (str(len(storages) - 1), "cpu", array.size))
    pid = b"(" + _dump("storage", storages) + storage + b"".join(place) + b"tQ"
    view = (_dump(part, storages) for part in (0, array.shape, strides))
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"".join(view) + hooks + b"tR"


@pytest.fixture(scope="session")
def ours(oracle):
    """The oracle's 2.6B graph by our names: L 3, H 64, N 4, V 1000, S 32."""
    from pangu_alpha.checkpoint.foreign.mindspore.released import released_names

    names = released_names(ORACLE).items()
    arrays = {own: (oracle[f"plain/param/{official}"], flip) for own, (official, flip) in names}
    return {own: np.ascontiguousarray(a.T if flip else a) for own, (a, flip) in arrays.items()}


@pytest.fixture(scope="session")
def model_yaml(tmp_path_factory):
    """What --model takes for the oracle's network."""
    path = tmp_path_factory.mktemp("model") / "oracle.yaml"
    shape = "vocab_size: 1000, hidden_size: 64, num_layers: 3, num_heads: 4, seq_length: 32"
    path.write_text(f"model: {{{shape}}}\n")
    return str(path)


@pytest.fixture(scope="session")
def checkpoint_of_ours(ours, tmp_path_factory):
    """The same as one of our checkpoints, of weights alone."""
    from pangu_alpha.checkpoint.native.format import Manifest, write_checkpoint
    from pangu_alpha.config.schema import to_mapping

    path = tmp_path_factory.mktemp("ours") / "step_00000012"
    write_checkpoint(path, {"model": ours}, Manifest(12, 0, {"model": to_mapping(ORACLE)}, kind="weights"))
    return path


@pytest.fixture
def assert_whole():
    """Asserts that a checkpoint holds exactly these tensors, bit for bit, and returns its Source."""

    def check(path, arrays, options):
        found = open_source(path, options)
        assert found.manifest.kind == "training"
        assert {stem: set(group) for stem, group in found.tensors.items()} == {
            stem: set(group) for stem, group in arrays.items()
        }
        for stem, group in arrays.items():
            for name, array in group.items():
                stored = found.tensors[stem][name]
                assert np.array_equal(read_box(stored, whole(stored.shape)), array), name
        return found

    return check
