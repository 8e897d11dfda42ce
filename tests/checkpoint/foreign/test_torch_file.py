"""Files of torch.save are read without torch."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.foreign.torch.torch_file import (
    damaged_entries,
    flatten,
    is_torch_file,
    read_torch_file,
)
from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.tensors import whole

HERE = Path(__file__).parent
REAL = HERE / "torch_2_13.pt"  # by torch 2.13: tensors of a base 0..23 [4, 6], and what Megatron-LM adds


def values(tensor):
    return read_box(tensor.stored(), whole(tensor.shape))


def test_what_real_torch_wrote():
    read = read_torch_file(REAL)
    tensors = flatten(read["model"]["language_model"])
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = {
        "single": (base, "float32"),
        "half": (base[:2], "float16"),
        "row": (base[2], "float32"),
        "parameter": (base[:2] * 2, "float32"),
        "mask": (np.ones((1, 1, 2, 2)), "uint8"),
    }
    for name, (array, dtype) in expected.items():
        assert tensors[name].dtype == dtype
        np.testing.assert_array_equal(values(tensors[name]), array)
    assert tensors["brain"].dtype == "bfloat16"
    np.testing.assert_allclose(values(tensors["brain"]), base / 3, rtol=2**-8)
    assert tensors["scalar"].shape == ()
    assert read["iteration"] == 1000
    assert read["args"].state["num_attention_heads"] == 4
    assert not list(damaged_entries(REAL))


def test_what_we_write_for_tests_is_the_same_to_the_reader(write_torch, tmp_path):
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    write_torch(tmp_path / "x.bin", {"module": {"a": array, "b": array[0]}, "iteration": 3})
    read = read_torch_file(tmp_path / "x.bin")
    assert read["iteration"] == 3
    assert list(flatten(read)) == ["module.a", "module.b"]
    np.testing.assert_array_equal(values(read["module"]["a"]), array)
    assert is_torch_file(tmp_path / "x.bin") and is_torch_file(REAL) and not is_torch_file(Path(__file__))


@pytest.mark.parametrize(
    ("name", "said"),
    [("torch_legacy.pt", "before 1.6.*weights_only=True"), ("torch_strided.pt", r"strides \[1, 6\]")],
)
def test_forms_that_are_not_read_say_what_to_do(name, said):
    with pytest.raises(CheckpointError, match=said):
        read_torch_file(HERE / name)


def test_damage_is_named(write_torch, tmp_path):
    data = REAL.read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"cut\.pt: no file of torch.save, or cut short"):
        read_torch_file(tmp_path / "cut.pt")
    place = flatten(read_torch_file(REAL))["model.language_model.single"].offset
    (tmp_path / "flipped.pt").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert [said for said in damaged_entries(tmp_path / "flipped.pt") if "data/" in said and "CRC" in said]
    write_torch(tmp_path / "odd.pt", {"a": np.zeros(4, np.float32)})
    packed = tmp_path / "packed.pt"
    with (
        zipfile.ZipFile(tmp_path / "odd.pt") as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(CheckpointError, match="is compressed"):
        read_torch_file(packed)
