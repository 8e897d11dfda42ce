"""Nothing that the pickle of a torch file names is run, and none takes all time or memory."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import zipfile

import pytest

from pangu_alpha.checkpoint.foreign.torch.torch_file import flatten, read_torch_file
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError


class Evil:
    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


def nested_global(module, name, *arguments):
    words = b"".join(b"X" + len(word).to_bytes(4, "little") + word.encode() for word in arguments)
    return f"c{module}\n{name}\n(".encode() + words + b"tR."


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_refused_and_not_run(write_torch, tmp_path, protocol):
    mark = tmp_path / "was_run"
    pickled = pickle.dumps({"a": Evil(os.system, f"touch {mark}")}, protocol)
    write_torch(tmp_path / "evil.pt", None, pickled)
    with pytest.raises(CheckpointError, match=r"posix\.system.*nothing was run"):
        read_torch_file(tmp_path / "evil.pt")
    assert not mark.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        nested_global("builtins", "eval", "1"),
        nested_global("builtins", "getattr", "a"),
        nested_global("torch", "load", "x"),
        nested_global("torch.hub", "load", "x"),
        nested_global("numpy", "load", "x"),
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",  # STACK_GLOBAL
        b"(X\x01\x00\x00\x001ibuiltins\neval\n.",  # INST
    ],
)
def test_other_names_are_refused(write_torch, tmp_path, pickled):
    write_torch(tmp_path / "x.pt", None, pickled)
    with pytest.raises(CheckpointError, match="which is not needed for weights"):
        read_torch_file(tmp_path / "x.pt")


def test_state_cannot_be_smuggled_into_what_we_make(write_torch, tmp_path):
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00(K\x04t(K\x01t\x89}tR"
    )
    state = b"}X\x04\x00\x00\x00fileX\x0b\x00\x00\x00/etc/passwdsb."
    write_torch(tmp_path / "x.pt", None, tensor + state)
    with zipfile.ZipFile(tmp_path / "x.pt", "a") as archive:
        archive.writestr("archive/data/0", bytes(16))
    with pytest.raises(CheckpointError, match="its pickle is damaged"):
        read_torch_file(tmp_path / "x.pt")


def framed(opcode, form, length, rest=b""):
    return opcode + struct.pack(form, length) + rest


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
HOSTILE = {  # pickles of some bytes, but for the nested ones
    "holds itself": b"}q\x00X\x01\x00\x00\x00ah\x00s.",
    "2^40 leaves": b"}X\x01\x00\x00\x00kK\x01s"
    + b"q\x00}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00u" * 40
    + b".",
    "nested deep": b"}X\x01\x00\x00\x00a" * 50_000 + b"}" + b"s" * 50_000 + b".",
    "key of 2^60 parts": b"}K\x01" + b"2\x86" * 60 + b"K\x01s.",
    "key of 2^60 parts, DICT": b"(K\x01" + b"2\x86" * 60 + b"K\x01d.",
    "key of 2^60 parts, SETITEMS": b"}(K\x01" + b"2\x86" * 60 + b"K\x01u.",
    "key nested deep": b"})" + b"\x85" * 1_000_000 + b"K\x01s.",
    "member nested deep": b"\x8f()" + b"\x85" * 1_000_000 + b"\x90.",
    "frozen member nested deep": b"()" + b"\x85" * 1_000_000 + b"\x91.",
    "storage of 2^60 parts": b"K\x01" + b"2\x86" * 60 + b"Q.",
    "key of storage of 2^60 parts": b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nK\x01"
    + b"2\x86" * 60
    + b"tQ.",
    "bytearray of 3 GB": framed(b"\x80\x05\x96", "<Q", 3 << 30, b"."),
    "bytes of 6 GB": framed(b"\x80\x04\x8e", "<Q", 6 << 30, b"."),
    "text of 6 GB": framed(b"\x80\x04\x8d", "<Q", 6 << 30, b"."),
    "frame of 6 GB": framed(b"\x80\x04\x95", "<Q", 6 << 30, b"."),
    "long of 2 GB": framed(b"\x80\x04\x8b", "<i", 2**31 - 1, b"."),
    "copies of a mapping": b"ccollections\nOrderedDict\nq\x00}q\x010" + b"h\x00h\x01\x85R0" * 3 + b"N.",
    "a class that is changed": b"ctorch\nSize\n}X\x01\x00\x00\x00aK\x01sb.",
    "a function that is changed": b"ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.",
    "a shape without end": b"ctorch._utils\n_rebuild_tensor_v2\n("
    + STORAGE
    + b"K\x00("
    + b"K\x02" * 9999
    + b"t)\x89}tR.",
    "64 MB of zeros": bytes(64 << 20),
}


LIMITED = """
import resource, sys
from pathlib import Path
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.foreign.torch.torch_file import flatten, read_torch_file
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
for path in sys.argv[1:]:
    try:
        flatten(read_torch_file(Path(path)))
    except CheckpointError as error:
        print(error, flush=True)
"""
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def test_no_pickle_takes_all_time_or_memory(tmp_path):
    """In a process of its own, with 1 GB of addresses, of which numpy takes half."""
    paths = [tmp_path / f"{name}.pt" for name in HOSTILE]
    for path, pickled in zip(paths, HOSTILE.values(), strict=True):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr(zipfile.ZipInfo("archive/data/0"), bytes(16))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *paths], capture_output=True, text=True, timeout=60, env=ONE_THREAD
    )
    said = done.stdout.splitlines()
    for path, line in zip(paths, said, strict=False):
        assert line.startswith(f"{path}: its ") and len(line) < 500, line
    assert len(said) == len(paths), f"{paths[len(said)].name}: {done.returncode} {done.stderr[-400:]}"


def test_mappings_that_are_shared_are_read(write_torch, tmp_path):
    """One tensor and one mapping under two names, as torch's pickles have them; and its module's metadata."""
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + STORAGE
        + b"K\x00(K\x04t(K\x01t\x89ccollections\nOrderedDict\n)RtR"
    )
    inner = b"ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00w" + tensor + b"u}X\x09\x00\x00\x00_metadataNsb"
    write_torch(tmp_path / "x.pt", None, b"}(X\x01\x00\x00\x00a" + inner + b"q\x05X\x01\x00\x00\x00bh\x05u.")
    with zipfile.ZipFile(tmp_path / "x.pt", "a") as archive:
        archive.writestr("archive/data/0", bytes(16))
    found = flatten(read_torch_file(tmp_path / "x.pt"))
    assert [*found] == ["a.w", "b.w"] and found["a.w"] == found["b.w"] and found["a.w"].shape == (4,)
