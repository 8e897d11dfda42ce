from __future__ import annotations

import os
import pickle
import zipfile

import numpy as np
import pytest

from pangu_alpha.checkpoint.foreign.mindspore import ckpt_file
from pangu_alpha.checkpoint.foreign.mindspore.ckpt_file import read_ckpt
from pangu_alpha.checkpoint.foreign.mindspore.export import export_ckpt
from pangu_alpha.checkpoint.foreign.mindspore.released import released_names
from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.tensors import Piece, Stored, whole
from pangu_alpha.config.model import ModelConfig

QUIET = Limits(workers=1, progress=False)
ORACLE = ModelConfig(vocab_size=1000, hidden_size=64, num_layers=3, num_heads=4, seq_length=32)


def varint(value):
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number, content):
    """A protobuf field with a length."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def message(name, array, kind="Float32"):
    """A tensor as MindSpore's .ckpt files hold it."""
    dims = b"".join(b"\x08" + varint(size) for size in array.shape)
    tensor = dims + field(2, kind.encode()) + field(3, array.tobytes())
    return field(1, field(1, name.encode()) + field(2, tensor))


def values(file, name):
    one = file.tensors[name]
    stored = Stored(one.shape, (Piece(whole(one.shape), file.path, one.extents, one.dtype),))
    return read_box(stored, whole(one.shape))


def everything(source, stem="model"):
    tensors = source.tensors[stem].items()
    return {name: read_box(stored, whole(stored.shape)) for name, stored in tensors}


A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "plain.ckpt"
    path.write_bytes(message("a", A) + message("b", B))
    return path


@pytest.mark.parametrize("crc", [False, True])
def test_reads_what_mindspore_saves(cpu, tmp_path, monkeypatch, crc):
    import mindspore as ms
    from mindspore.train import serialization

    monkeypatch.setattr(serialization, "SLICE_SIZE", 1)  # KB; tensors of more are split
    rng = np.random.default_rng(0)
    arrays = {
        "big": rng.standard_normal((50, 31)).astype(np.float32),
        "half": np.ones(3, np.float16),
    }
    saved = [{"name": name, "data": ms.Tensor(array)} for name, array in arrays.items()]
    saved.append({"name": "brain", "data": ms.Tensor(B * 1.5).astype(ms.bfloat16)})
    info = {"epoch_num": 3, "step_num": 7, "lr": 0.5, "flag": True, "note": "text"}
    ms.save_checkpoint(saved, str(tmp_path / "made.ckpt"), append_dict=info, crc_check=crc)
    file = read_ckpt(tmp_path / "made.ckpt")
    assert dict(file.info) == info
    assert {name: one.dtype for name, one in file.tensors.items()} == {
        "big": "float32",
        "half": "float16",
        "brain": "bfloat16",
    }
    assert len(file.tensors["big"].extents) == 7
    assert np.array_equal(values(file, "big"), arrays["big"])
    assert np.array_equal(values(file, "half"), [1, 1, 1])
    assert np.array_equal(values(file, "brain"), [1.5, 1.5, 1.5])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_mindspore_reads_what_we_write(cpu, tmp_path, monkeypatch, checkpoint_of_ours, ours, dtype):
    import mindspore as ms

    monkeypatch.setattr(ckpt_file, "_LONGEST", 5000)
    export_ckpt(open_source(checkpoint_of_ours), tmp_path / "made.ckpt", dtype, QUIET)
    loaded = ms.load_checkpoint(str(tmp_path / "made.ckpt"))
    names = released_names(ORACLE)
    assert loaded.keys() == {official for official, _ in names.values()} | {"step_num"}
    assert loaded["step_num"].asnumpy() == 12
    for own, (official, flip) in names.items():
        array = (ours[own].T if flip else ours[own]).astype(dtype)
        found = loaded[official].asnumpy()
        assert found.dtype == dtype and np.array_equal(found, array), official


def test_a_merged_file_comes_back_by_itself_or_in_a_folder(tmp_path, checkpoint_of_ours, ours, model_yaml):
    (tmp_path / "folder").mkdir()
    merged = tmp_path / "folder" / "PanguAlpha_tiny.ckpt"
    export_ckpt(open_source(checkpoint_of_ours), merged, limits=QUIET)
    for path in (merged, merged.parent):
        source = open_source(path, OpenOptions(model=model_yaml))
        assert source.manifest.step == 12 and source.manifest.kind == "weights"
        found = everything(source)
        assert found.keys() == ours.keys()
        assert all(np.array_equal(found[name], ours[name]) for name in ours)
    with pytest.raises(CheckpointError, match="hidden size 64 is none of the shipped models"):
        open_source(merged)


def test_a_message_may_come_in_another_order_or_without_dimensions(tmp_path):
    tensor = field(3, A.tobytes()) + field(2, b"Float32") + bytes([8, 2, 8, 3])
    content = field(1, field(2, tensor) + field(1, b"a"))
    content += field(1, field(1, b"n") + field(2, field(2, b"Int32") + field(3, b"\x05\0\0\0")))
    (tmp_path / "odd.ckpt").write_bytes(content)
    file = read_ckpt(tmp_path / "odd.ckpt")
    assert np.array_equal(values(file, "a"), A) and file.info == {"n": 5}


def test_every_cut_is_noticed(plain):
    content = plain.read_bytes()
    boundary = len(message("a", A))
    for size in range(len(content)):
        plain.write_bytes(content[:size])
        if size == boundary:  # a whole file of fewer tensors, which its reader misses by name
            assert list(read_ckpt(plain).tensors) == ["a"]
        else:
            with pytest.raises(CheckpointError, match="plain.ckpt: (damaged|not a MindSpore checkpoint: e)"):
                read_ckpt(plain)


def test_a_flipped_bit_is_noticed_where_there_is_a_checksum(tmp_path):
    import mindspore as ms

    path = tmp_path / "made.ckpt"
    ms.save_checkpoint([{"name": "a", "data": ms.Tensor(A)}], str(path), crc_check=True)
    content = path.read_bytes()
    path.chmod(0o600)
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match="made.ckpt: "):
            read_ckpt(path)


class Trap:
    def __reduce__(self):
        return os.system, ("touch trapped",)


def test_what_is_no_checkpoint_is_refused_and_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled = tmp_path / "pickle.ckpt"
    zipped, encrypted, text = tmp_path / "zip.ckpt", tmp_path / "locked.ckpt", tmp_path / "text.ckpt"
    strategy = tmp_path / "cuts.ckpt"
    pickled.write_bytes(pickle.dumps(Trap()))
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap()))
    encrypted.write_bytes(bytes.fromhex("d85e3a7f1328c7a3"))
    text.write_text("<html>not found</html>")
    strategy.write_bytes(b"\x08\x01")
    for path, words in (
        (pickled, "a pickle inside a .ckpt"),
        (zipped, "a pickle inside a .ckpt"),
        (encrypted, "encrypted"),
        (text, "not a MindSpore checkpoint: begins with 3c 68"),
        (strategy, "a strategy file"),
    ):
        with pytest.raises(CheckpointError, match=f"{path.name}: {words}"):
            open_source(path)
    assert not (tmp_path / "trapped").exists()


def test_contradictions_within_a_file_are_named(plain):
    plain.write_bytes(message("a", A) + message("b", B) + message("a", A))
    with pytest.raises(CheckpointError, match="damaged: a is there twice"):
        read_ckpt(plain)
    plain.write_bytes(message("a", A, "Float16"))
    with pytest.raises(CheckpointError, match=r"a: 24 bytes, 12 are needed for float16 \[2, 3\]"):
        read_ckpt(plain)
    plain.write_bytes(message("a", A) + message("q", A, "Int4"))
    assert read_ckpt(plain).aside == ("q",)
    with pytest.raises(CheckpointError, match="not a PanGu-alpha"):
        open_source(plain)
