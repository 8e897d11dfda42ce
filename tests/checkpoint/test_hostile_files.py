"""Damaged and hostile checkpoints end soon, in a sentence that names the file, and run nothing."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.checkpoint.foreign.mindspore.ckpt_file import _head, read_ckpt
from pangu_alpha.checkpoint.foreign.mindspore.export import STRATEGY_FILE, export_released, export_slices
from pangu_alpha.checkpoint.foreign.mindspore.protobuf_wire import length_field, number_field
from pangu_alpha.checkpoint.foreign.mindspore.strategy_file import read_strategy
from pangu_alpha.checkpoint.foreign.torch.torch_file import damaged_entries, read_torch_file
from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.export import ExportOptions, export
from pangu_alpha.checkpoint.native.format import MANIFEST, MARKER, Manifest, write_checkpoint
from pangu_alpha.checkpoint.native.tensor_file import checksum, locate_tensors
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.network.parameters import parameter_shapes

MODEL = ModelConfig(vocab_size=24, hidden_size=8, num_layers=2, num_heads=2, seq_length=4)
LIMITS = Limits(workers=1, progress=False)
QUIET = ExportOptions(limits=LIMITS)
FOUR = ParallelPlan(dp=2, tp=2, optimizer_parallel="level1", optimizer_threshold=1)
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 5242880\n"


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """One good checkpoint in several forms."""
    at, rng = tmp_path_factory.mktemp("forms"), np.random.default_rng(0)
    arrays = {n: rng.standard_normal(s, dtype=np.float32) for n, s in parameter_shapes(MODEL).items()}
    write_checkpoint(
        at / "own", {"model": arrays}, Manifest(5, 9, {"model": to_mapping(MODEL)}, kind="weights")
    )
    source = open_source(at / "own")
    export(source, at / "port", "huggingface", QUIET)
    export(source, at / "unified", "unified", QUIET)
    (at / "ckpt").mkdir()
    export(source, at / "ckpt/one.ckpt", "ckpt", QUIET)
    export_slices(source, at / "slices", FOUR, "ours", "ckpt", LIMITS)
    export_released(source, at / "released", dp=2, mp=2, limits=LIMITS)
    return at


@pytest.fixture
def form(forms, tmp_path):
    """A copy of one of the forms that a test may spoil."""
    return lambda name: shutil.copytree(forms / name, tmp_path / name)


FILES = [
    ("own", "manifest.json"), ("own", "model.safetensors"), ("port", "model.safetensors"),
    ("unified", "param_name_map.json"), ("ckpt", "one.ckpt"), ("slices", "rank_1/pangu_alpha.ckpt"),
    ("slices", STRATEGY_FILE), ("released", "filerted_1.ckpt"), ("released", "word_embedding.npy"),
    ("port", "config.json"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_pipe_under_the_name_of_a_file_is_never_waited_for(form, name, file):
    path = form(name) / file
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match=f"{path.name}: is a pipe") as error:
        open_source(path.parents[len(Path(file).parts) - 1], OpenOptions(model=MODEL))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(("name", "file"), [pair for pair in FILES if pair[0] != "own"])
def test_a_git_lfs_pointer_is_named(form, name, file):
    path = form(name) / file
    path.write_text(POINTER)
    with pytest.raises(CheckpointError, match=f"{path.name}: a git-LFS pointer of a file of 5,242,880 bytes"):
        open_source(path.parents[len(Path(file).parts) - 1], OpenOptions(model=MODEL))


def test_a_vocabulary_that_is_a_pointer_is_named(form):
    for name in ("port", "ckpt", "slices"):
        path = form(name)
        (path / "vocab.model").write_text(POINTER)
        with pytest.raises(CheckpointError, match=r"vocab.model: a git-LFS pointer"):
            open_source(path, OpenOptions(model=MODEL))


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt", "a.pt", "a.bin", "model.safetensors.index.json"])
def test_no_form_can_be_guessed_but_the_reason_is_said(tmp_path, name):
    (tmp_path / name).write_text(POINTER)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(CheckpointError, match=f"{name}: a git-LFS pointer"):
            open_source(path)


# ---- MindSpore's files ----


def ckpt(path, *messages):
    path.write_bytes(b"".join(messages))
    return path


def tensor(name, *shape, size=None):
    count = 4 * (int(np.prod(shape)) if size is None else size)
    return _head(name, shape, "float32", count) + bytes(count)


QUERY = "backbone.top_query_layer.attention.dense1.weight"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([b"\x0a\x00" * 100_000], r"byte 2: a tensor without a name"),
        ([tensor("x", *[1] * 33)], "'x': more than 32 dimensions"),
        ([_head("x", [1 << 62] * 30, "float32", 4) + bytes(4)], r"x has the shape .*, which no memory holds"),
        ([_head("x", [(1 << 64) - 1], "float32", 4) + bytes(4)], r"x has the shape \[18446744073709551615\]"),
        ([tensor("x", 2), tensor("y", 2), tensor("x", 2)], "x is there twice"),
    ],
)
def test_messages_that_are_no_tensors(tmp_path, messages, said):
    with pytest.raises(CheckpointError, match=f"a.ckpt: damaged.*{said}") as error:
        read_ckpt(ckpt(tmp_path / "a.ckpt", *messages))
    assert len(str(error.value)) < 500


def test_a_tensor_of_many_messages_takes_no_longer_than_others(tmp_path):
    path = ckpt(tmp_path / "a.ckpt", *[_head("x", (20_000,), "float32", 4) + b"abcd"] * 20_000)
    found = read_ckpt(path).tensors["x"]
    assert len(found.extents) == 20_000 and found.stored == 80_000


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([tensor(QUERY, 1)], rf"a.ckpt: {QUERY} is \[1\]: 1 dimensions, PanGu-alpha's has 2"),
        ([tensor(QUERY, 1, 1024, 1)], "3 dimensions, PanGu-alpha's has 2"),
        (
            [tensor("blocks.0.attention_norm.gamma", 1), tensor("backbone.x", 1)],
            "names of two kinds, such as 'backbone.x' and 'blocks.0.attention_norm.gamma'",
        ),
        (
            [tensor("backbone.blocks.99999999.layernorm1.gamma", 1), tensor(QUERY, 1, 1024)],
            r"extra: backbone.blocks.99999999.layernorm1.gamma \[1\]",
        ),
        (
            [tensor(f"backbone.blocks.{'9' * 5000}.layernorm1.gamma", 1)],
            "not a PanGu-alpha: no tensor is named",
        ),
    ],
)
def test_names_and_shapes_of_no_network(tmp_path, messages, said):
    with pytest.raises(CheckpointError, match=said):
        open_source(ckpt(tmp_path / "a.ckpt", *messages))


def test_a_model_of_100_million_layers_is_refused(form):
    many = ModelConfig(vocab_size=24, hidden_size=8, num_layers=10**8, num_heads=2, seq_length=4)
    with pytest.raises(CheckpointError, match="2 layers; --model says 100,000,000"):
        open_source(form("ckpt"), OpenOptions(model=many))
    with pytest.raises(CheckpointError, match="num_layers: this run says 100000000, the tensors show 2"):
        open_source(form("port"), OpenOptions(model=many))


def test_tables_of_another_rank_beside_slices(form):
    path = form("released")
    for shape in ((), (192,), (24, 8, 1)):
        np.save(path / "word_embedding.npy", np.zeros(shape, np.float32))
        with pytest.raises(CheckpointError, match=rf"word_embedding.npy: .* is .*: {len(shape)} dimensions"):
            open_source(path, OpenOptions(model=MODEL))


def test_a_table_is_cut_to_a_vocabulary_only_where_the_rest_may_be_padding(form, tmp_path):
    from pangu_alpha.checkpoint.renaming import _is_padded

    assert _is_padded(40_960, 40_000) and not _is_padded(40_000, 40_000)
    assert not _is_padded(40_000, 24) and not _is_padded(24, 40_000)


def layout(*fields):
    return number_field(1, 1) + length_field(3, length_field(1, b"w") + length_field(2, b"".join(fields)))


@pytest.mark.parametrize(
    "fields",
    [
        [length_field(1, number_field(1, 2) * 60_000)],
        [length_field(1, length_field(1, bytes([2]) * 60_000))],
        [length_field(1, number_field(1, 2)), length_field(2, number_field(1, 0) * 60_000)],
        [length_field(1, number_field(1, 2)), *[length_field(2, number_field(1, 0))] * 60_000],
        [length_field(3, number_field(1, 0) * 60_000)],
    ],
)
def test_a_strategy_of_thousands_of_dimensions(tmp_path, fields):
    (tmp_path / "s.ckpt").write_bytes(layout(*fields))
    with pytest.raises(CheckpointError, match="s.ckpt: damaged.* more than 32 dimensions"):
        read_strategy([tmp_path / "s.ckpt"])


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"dev_matrix": [2] * 60_000, "tensor_map": [0]}, "60,000 dimensions"),
        ({"dev_matrix": [2], "tensor_map": [0] * 60_000}, "60,000 dimensions"),
        ({"dev_matrix": [2], "tensor_map": [[0] * 60_000]}, "60,000 dimensions"),
        ({"dev_matrix": [10**4000], "tensor_map": [0]}, "a whole number of 13,288 bits is beyond 64 bits"),
        ({"dev_matrix": "2", "tensor_map": [0]}, "'2' in the place of a list"),
        ({"dev_matrix": [2], "tensor_map": ["\x1b[2J"]}, r"'\\x1b\[2J' in the place of a number"),
    ],
)
def test_a_strategy_in_json_of_no_sizes(tmp_path, item, said):
    (tmp_path / "s.json").write_text(json.dumps({"parallel_layout_item": {"w": item}}))
    with pytest.raises(CheckpointError, match=f"s.json: damaged.*{said}"):
        read_strategy([tmp_path / "s.json"])


@pytest.mark.parametrize("name", ["../slices.safetensors", "/etc/hostname", 5, None])
def test_a_map_of_names_leads_nowhere_else(form, name):
    path = form("unified")
    found = json.loads((path / "param_name_map.json").read_text())
    found["weight_map"]["query_embedding.table"] = name
    (path / "param_name_map.json").write_text(json.dumps(found))
    with pytest.raises(CheckpointError, match="param_name_map.json: names .* only a file in the folder"):
        open_source(path, OpenOptions(model=MODEL))


# ---- safetensors ----


def safetensors(path, text, data=b""):
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[" * 500_000, "its header: .* more than 100 deep"),
        (
            {"a": {"dtype": "F32", "shape": [1] * 60_000, "data_offsets": [0, 4]}},
            "the shape 60,000 dimensions",
        ),
        (
            {"a": {"dtype": "F32", "shape": [1 << 62, 1 << 62, 0], "data_offsets": [0, 0]}},
            "'a' has the shape",
        ),
        (b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b"]}}", "thousands of digits"),
        (b'{"\\ud800": 1}', "surrogate"),
        ({"a" * 100_000: 3}, "its header says 3 of 'aaa"),
    ],
)
def test_headers_of_no_tensors(tmp_path, text, said):
    with pytest.raises(CheckpointError, match=said) as error:
        locate_tensors(safetensors(tmp_path / "a.safetensors", text, bytes(4)))
    assert str(error.value).startswith(f"{tmp_path}/a.safetensors: not a safetensors file (")
    assert len(str(error.value)) < 500


def test_what_a_header_says_of_the_model(form):
    path = form("port") / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    said = json.loads(header["__metadata__"]["pangu_alpha.model"])
    for text, words in [
        ("[" * 100_000, "what its header says of the model: .* more than 100 deep"),
        ("[1]", "not a JSON object"),
        (
            json.dumps({**said, "num_layers": 10**8}),
            "num_layers: the header of .* says 100000000, the tensors",
        ),
        (json.dumps({**said, "num_layers": [3]}), r"num_layers is \[3\], which is no size"),
    ]:
        header["__metadata__"]["pangu_alpha.model"] = text
        safetensors(path, header, raw[8 + length :])
        with pytest.raises(CheckpointError, match=words):
            open_source(path.parent)


# ---- torch ----


def archive(path, pickled, method=zipfile.ZIP_STORED, **entries):
    with zipfile.ZipFile(path, "w", method) as made:
        made.writestr("archive/data.pkl", pickled)
        for name, content in entries.items():
            made.writestr(f"archive/{name}", content)
    return path


def number(value):
    """A pickled integer of any size."""
    data = value.to_bytes(value.bit_length() // 8 + 1, "little")
    return b"\x8a" + bytes([len(data)]) + data


PRIME = (1 << 61) - 1  # whose multiples have one and the same hash
NAMESPACE = b"\x80\x02cargparse\nNamespace\nq\x00"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_entries_that_inflate_without_a_bound_are_not_read(tmp_path, method):
    path = archive(tmp_path / "a.bin", b"\x80\x02}.", x=b"")
    with zipfile.ZipFile(path, "a", method) as made:
        made.writestr("archive/more", bytes(1000))
    with pytest.raises(CheckpointError, match="'archive/more' is compressed by (bzip2|lzma)"):
        read_torch_file(path)
    assert ["compressed by" in said for said in damaged_entries(path)] == [True]


def test_a_deflated_pickle_is_inflated_no_further_than_it_says(tmp_path, monkeypatch):
    path = archive(tmp_path / "a.bin", bytes(50_000_000), zipfile.ZIP_DEFLATED)
    content = path.read_bytes().replace(struct.pack("<I", 50_000_000), struct.pack("<I", 1000))
    path.write_bytes(content)
    asked = []
    inflate = zipfile.ZipExtFile._read1

    def watched(self, count):
        asked.append(count)
        return inflate(self, count)

    monkeypatch.setattr(zipfile.ZipExtFile, "_read1", watched)
    with pytest.raises(CheckpointError, match="a.bin: no file of torch.save, or cut short"):
        read_torch_file(path)
    assert asked and max(asked) <= 1000


def test_entries_that_claim_more_than_the_file_are_not_read(tmp_path):
    path = archive(tmp_path / "a.bin", b"\x80\x02}.", zipfile.ZIP_DEFLATED, x=bytes(20_000_000))
    assert ["do not fit a file of" in said for said in damaged_entries(path)] == [True]


@pytest.mark.parametrize(
    ("pickled", "said"),
    [
        (
            b"\x80\x02}(" + b"".join(number(n * PRIME) + b"N" for n in range(1, 40_000)) + b"u.",
            "beyond all count",
        ),
        (
            b"\x80\x02" + b"".join(b"Np%d\n0" % (n * PRIME) for n in range(1, 30_000)) + b"N.",
            "a number of a memo",
        ),
        (
            NAMESPACE + b"(" + b"N" * 300_000 + b"tq\x010" + b"h\x00h\x01R0" * 50_000 + b"N.",
            "more arguments than",
        ),
        (
            NAMESPACE + b"(" + b"N" * 300_000 + b"tq\x010" + b"h\x00h\x01\x810" * 50_000 + b"N.",
            "more arguments",
        ),
        (b"\x80\x02(" + b"N" * 300_000 + b"tq\x010" + b"h\x01Q0" * 50_000 + b"N.", "no storage of torch"),
    ],
    ids=["keys of one hash", "memo of one hash", "calls", "new objects", "references"],
)
def test_pickles_that_would_take_for_ever(tmp_path, pickled, said):
    with pytest.raises(CheckpointError, match=f"a.bin: its pickle is damaged.*{said}"):
        read_torch_file(archive(tmp_path / "a.bin", pickled))


def test_plain_calls_and_keys_are_read(tmp_path):
    pickled = NAMESPACE + b"0}(" + number(1 << 59) + b"h\x00)RK\x07Nu."
    assert list(read_torch_file(archive(tmp_path / "a.bin", pickled))) == [1 << 59, 7]


def test_a_pickle_of_deep_lists_ends_in_a_sentence(tmp_path):
    for pickled in (b"N" + b"\x85" * 500_000 + b".", b"]" * 300_000 + b"a" * 299_999 + b"."):
        path = archive(tmp_path / "pytorch_model.bin", b"\x80\x02" + pickled)
        with pytest.raises(CheckpointError, match="pytorch_model.bin: not PanGu-alpha .*; it has no tensors"):
            open_source(path)


# ---- our own form ----


def manifest(path, change):
    """Writes a changed manifest with the marker that fits it."""
    values = json.loads((path / MANIFEST).read_text())
    change(values)
    text = json.dumps(values).encode()
    (path / MANIFEST).write_bytes(text)
    (path / MARKER).write_text(f"xxh3_128 {checksum(text)} {MANIFEST}\n")
    return path


def model(**sizes):
    return lambda values: values["config"]["model"].update(sizes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (model(num_layers=3), "num_layers: manifest.json says 3, the tensors show 2"),
        (model(vocab_size=25), "vocab_size: manifest.json says 25, the tensors show 24"),
        (model(hidden_size=16), "hidden_size: manifest.json says 16, the tensors show 8"),
        (model(seq_length=8), "seq_length: manifest.json says 8, the tensors show 4"),
        (model(num_layers=10**8), "model.num_layers is 100,000,000, which no network has"),
        (lambda values: values.update(files={}), "manifest.json: names no tensors of a model"),
        (lambda values: values["files"].update({"a\0b": values["files"]["model"]}), r"'a\\x00b'"),
        (lambda values: values["files"].update({"../x": values["files"]["model"]}), r"'../x'"),
        (lambda values: values.update(step=-1), "its checksum: step"),
        (lambda values: values.update(samples=1 << 70), "its checksum: samples"),
        (lambda values: values.update(step=True), "its checksum: step"),
        (lambda values: values.update(version=[[1]]), r"of format version \[\[1\]\]"),
        (lambda values: values.update({"\x1b[2J": 1}), r"its checksum: \\x1b\[2J"),
    ],
)
def test_manifests_that_say_something_else(form, change, said):
    with pytest.raises(CheckpointError, match=said):
        open_source(manifest(form("own"), change))


def test_a_manifest_nested_without_end(form):
    path = form("own")
    text = b'{"state": ' + b"[" * 100_000
    (path / MANIFEST).write_bytes(text)
    (path / MARKER).write_text(f"xxh3_128 {checksum(text)} {MANIFEST}\n")
    with pytest.raises(CheckpointError, match="manifest.json: .* more than 100 deep"):
        open_source(path)


def test_a_tensor_of_no_dimensions_in_our_form(tmp_path, forms):
    arrays = {"w": np.float32(1.0).reshape(())}
    write_checkpoint(tmp_path / "own", {"model": arrays}, Manifest(1, 1, {"model": to_mapping(MODEL)}))
    with pytest.raises(CheckpointError, match="manifest.json: 'w' is a single number, not a tensor"):
        open_source(tmp_path / "own")


def test_parts_and_plan_are_of_one_number(forms, tmp_path):
    from pangu_alpha.checkpoint.moving.reshard import reshard

    reshard(open_source(forms / "own"), tmp_path / "parts", FOUR, True, LIMITS)
    for devices, said in ((1 << 20, 2097152), (4, 8)):
        manifest(tmp_path / "parts", lambda values, dp=devices: values["config"]["parallel"].update(dp=dp))
        with pytest.raises(CheckpointError, match=f"the parts of 4 ranks, its plan is of {said}"):
            open_source(tmp_path / "parts")


def test_a_layer_that_is_in_no_file_of_ours(forms, tmp_path):
    source = open_source(forms / "own")
    arrays = {name: np.zeros(stored.shape, np.float32) for name, stored in source.tensors["model"].items()}
    lost = {name: array for name, array in arrays.items() if not name.startswith("blocks.0.")}
    write_checkpoint(tmp_path / "lost", {"model": lost}, source.manifest)
    with pytest.raises(CheckpointError, match="num_layers: manifest.json says 2, the tensors show 1"):
        open_source(tmp_path / "lost")
