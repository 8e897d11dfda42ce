from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.foreign.mindspore.ckpt_file import read_ckpt
from pangu_alpha.checkpoint.foreign.mindspore.export import export_released
from pangu_alpha.checkpoint.foreign.mindspore.rank_saves import ranges
from pangu_alpha.checkpoint.foreign.mindspore.released import load_released, released_names
from pangu_alpha.checkpoint.foreign.mindspore.released_folder import _npy
from pangu_alpha.checkpoint.foreign.mindspore.strategy_file import Cut, strategy_bytes
from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.tensors import whole
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.network.parameters import parameter_shapes

AXES = json.loads((Path(__file__).parents[2] / "fixtures" / "released_2_6b_axes.json").read_text())
RANDOM = ModelConfig(vocab_size=96, hidden_size=512, num_layers=3, num_heads=8, seq_length=32)
TABLES = ("word_embedding", "position_embedding", "top_query_embedding")


QUIET = Limits(workers=1, progress=False)


def message(name, array):
    """A tensor as MindSpore writes it, by MindSpore's own schema."""
    import mindspore  # noqa: F401  (sets what google.protobuf needs)
    from mindspore.train.checkpoint_pb2 import Checkpoint

    content = Checkpoint()
    value = content.value.add(tag=name)
    value.tensor.dims.extend(array.shape)
    value.tensor.tensor_type, value.tensor.tensor_content = "Float32", array.tobytes()
    return content.SerializeToString()


def axis_of(name):
    """The axis the published strategy cuts over mp, None where it cuts none."""
    axes = AXES[name]
    return axes.index(0) if 0 in axes else None


def official(config, blank=False):
    """Random arrays by the official names."""
    rng, shapes = np.random.default_rng(0), parameter_shapes(config)
    arrays = {}
    for ours, (name, flip) in released_names(config).items():
        shape = shapes[ours][::-1] if flip else shapes[ours]
        arrays[name] = np.empty(shape) if blank else rng.standard_normal(shape, dtype=np.float32) * 0.05
    return arrays


def slice_of(name, array, rank, dp, mp):
    """What a rank holds by the published rule: the axis over mp, then the rows over dp."""
    axis = axis_of(name)
    if axis is None:
        return array
    part = np.split(array, mp, axis)[rank % mp]
    return np.split(part, dp)[rank // mp]


def write_release(folder, arrays, dp=64, mp=8, spelling="filerted", config=None):
    folder.mkdir(parents=True, exist_ok=True)
    tables = {name: array for name, array in arrays.items() if name.endswith("embedding_table")}
    inside = {name: array for name, array in arrays.items() if name not in tables}
    for rank in range(dp * mp):
        slices = (message(name, slice_of(name, array, rank, dp, mp)) for name, array in inside.items())
        (folder / f"{spelling}_{rank}.ckpt").write_bytes(b"".join(slices))
    for stem in TABLES:
        np.save(folder / f"{stem}.npy", next(a for name, a in tables.items() if f".{stem}." in name))


def write_strategy(path, arrays, dp, mp):
    """As the published file: every parameter and its moments, sharded where mp cuts."""
    cuts = {}
    for name in arrays:
        axes = tuple((0,) if axis == 0 else () for axis in AXES[name])
        for prefix in ("", "adam_m.", "adam_v."):
            cuts[prefix + name] = Cut((dp, mp), axes, dp if axis_of(name) is not None else 1)
    path.write_bytes(strategy_bytes({0: cuts}))


def read(source, name):
    stored = source.tensors["model"][name]
    return read_box(stored, whole(stored.shape))


def assert_equal(source, arrays, config):
    assert len(source.tensors["model"]) == len(arrays)
    for ours, (name, flip) in released_names(config).items():
        assert np.array_equal(read(source, ours), arrays[name].T if flip else arrays[name]), name


@pytest.fixture(scope="module")
def random_arrays():
    return official(RANDOM)


@pytest.fixture(scope="module")
def release(tmp_path_factory, random_arrays):
    """512 slices and three tables; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("release")
    write_release(folder, random_arrays)
    return folder


@pytest.fixture(scope="module")
def small_release(tmp_path_factory, random_arrays):
    folder = tmp_path_factory.mktemp("small")
    write_release(folder, random_arrays, dp=4, mp=4)
    return folder


def linked(release, folder):
    """A copy by links: a file that is to be changed has to be replaced."""
    shutil.copytree(release, folder, copy_function=lambda a, b: Path(b).hardlink_to(a))
    return folder


@pytest.fixture
def broken(release, tmp_path):
    return linked(release, tmp_path / "broken")


@pytest.fixture
def small(small_release, tmp_path):
    return linked(small_release, tmp_path / "broken")


def logits_of(model, oracle, case):
    from mindspore import Tensor

    ids = oracle[f"{case}/input_ids"].astype(np.int32)[:, :32]
    positions, mask = oracle[f"{case}/position_ids"], oracle[f"{case}/attention_mask"]
    return model(Tensor(ids), Tensor(positions.astype(np.int32)), Tensor(mask.astype(np.float32))).asnumpy()


def give(model, source):
    from mindspore import Tensor

    for name, parameter in model.parameters_and_names():
        parameter.set_data(Tensor(read(source, name)))


@pytest.mark.parametrize("strategy", [True, False])
def test_logits_are_the_oracles(cpu, oracle, tmp_path, strategy, model_yaml):
    from pangu_alpha.model.pangu import PanguAlpha

    prefix = "plain/param/"
    arrays = {name[len(prefix) :]: array for name, array in oracle.items() if name.startswith(prefix)}
    write_release(tmp_path, arrays, dp=8, mp=8)
    if strategy:
        write_strategy(tmp_path / "pangu_alpha_strategy.ckpt", arrays, 8, 8)
    source = open_source(tmp_path, OpenOptions(model=model_yaml))
    assert ("pangu_alpha_strategy.ckpt" in source.form) == strategy
    config = ModelConfig(**source.manifest.config["model"])
    model = PanguAlpha(config, seed=None)
    give(model, source)
    difference = np.abs(logits_of(model, oracle, "plain/A").reshape(64, -1) - oracle["plain/A/logits"])
    assert difference.max() <= 2e-4


def test_512_slices_give_what_merging_by_hand_gives(cpu, release, random_arrays):
    from mindspore import Tensor

    from pangu_alpha.model.pangu import PanguAlpha

    model = PanguAlpha(RANDOM, seed=None)
    ids = np.random.default_rng(1).integers(0, 96, (1, 32)).astype(np.int32)
    inputs = (
        Tensor(ids),
        Tensor(np.arange(32, dtype=np.int32)[None]),
        Tensor(np.tri(32, dtype=np.float32)[None]),
    )
    load_released(model, random_arrays)
    expected = model(*inputs).asnumpy()
    give(model, open_source(release, OpenOptions(model=RANDOM)))
    assert expected.std() > 0.1 and np.array_equal(model(*inputs).asnumpy(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("spelling", ["filerted", "filtered", "filitered"])
@pytest.mark.parametrize("strategy", [True, False])
def test_every_spelling_in_one_folder_or_several(broken, random_arrays, spelling, strategy):
    for rank in range(512):  # as four archives unpacked side by side
        part = broken / f"part{rank // 128}"
        part.mkdir(exist_ok=True)
        (broken / f"filerted_{rank}.ckpt").rename(part / f"{spelling}_{rank}.ckpt")
    options = OpenOptions(model=RANDOM)
    if strategy:
        write_strategy(broken / "elsewhere.ckpt", random_arrays, 64, 8)
        options = dataclasses.replace(options, strategy=broken / "elsewhere.ckpt")
    source = open_source(broken, options)
    assert source.form.startswith("released weights, 512 slices placed by")
    assert ("elsewhere.ckpt" in source.form) == strategy
    pieces = source.tensors["model"]["blocks.0.attention.query.weight"].pieces
    assert len(pieces) == 512 and pieces[0].file.name == f"{spelling}_0.ckpt"
    for name in ("blocks.1.feed_forward.up.weight", "query_layer.feed_forward.down.bias"):
        theirs, flip = released_names(RANDOM)[name]
        assert np.array_equal(read(source, name), random_arrays[theirs].T if flip else random_arrays[theirs])


@pytest.mark.slow
def test_full_size_slices_of_one_2_6b_layer(tmp_path):
    config = ModelConfig(vocab_size=1000, hidden_size=2560, num_layers=1, num_heads=32, seq_length=16)
    shapes = {name: array.shape for name, array in official(config, blank=True).items()}
    arrays = {
        name: np.arange(math.prod(shape), dtype=np.float32).reshape(shape) for name, shape in shapes.items()
    }
    write_release(tmp_path, arrays)
    source = open_source(tmp_path)  # H 2560 is known
    assert ModelConfig(**source.manifest.config["model"]) == config
    assert "taken for L 1, H 2560, N 32, V 1000, S 16" in source.notes[0]
    assert source.tensors["model"]["query_layer.feed_forward.up.weight"].pieces[0].box.shape == (1280, 40)
    for ours, (name, flip) in released_names(config).items():
        if "query_layer" not in ours or ours.split(".")[-2] in ("key", "output", "up", "down"):
            assert np.array_equal(read(source, ours), arrays[name].T if flip else arrays[name]), name


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def test_each_bad_slice_is_named(broken):
    paths = {rank: broken / f"filerted_{rank}.ckpt" for rank in (3, 7, 11)}
    extra = message("backbone.blocks.7.layernorm1.beta", np.zeros(512, np.float32))
    replace(paths[3], paths[3].read_bytes()[:-1])
    replace(paths[7], paths[7].read_bytes() + extra)
    replace(paths[11], message("backbone.blocks.0.layernorm1.beta", np.zeros(256, np.float32)))
    (broken / "filerted_200.ckpt").unlink()
    (broken / "again").mkdir()
    (broken / "again" / "filitered_5.ckpt").hardlink_to(broken / "filerted_5.ckpt")
    with pytest.raises(CheckpointError) as caught:
        open_source(broken, OpenOptions(model=RANDOM))
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    for line, words in zip(
        lines,
        (
            "slices to be fetched again",
            "slice 5 is there twice: filerted_5.ckpt, again/filitered_5.ckpt",
            "filerted_3.ckpt: damaged",
            "filerted_7.ckpt: not like the other slices: has backbone.blocks.7.layernorm1.beta",
            "filerted_11.ckpt: not like the other slices: lacks backbone.blocks.0.attention.dense1.bias",
            "missing: slices 200",
        ),
        strict=True,
    ):
        assert words in line


def test_copies_and_slices_of_another_model_are_named(small):
    replace(small / "filerted_7.ckpt", (small / "filerted_12.ckpt").read_bytes())
    content = bytearray((small / "filerted_9.ckpt").read_bytes())
    one = read_ckpt(small / "filerted_9.ckpt").tensors["backbone.layernorm.gamma"]
    content[one.extents[0][0]] ^= 1
    replace(small / "filerted_9.ckpt", content)
    with pytest.raises(CheckpointError) as caught:
        open_source(small, OpenOptions(model=RANDOM))
    first, copies, stranger = str(caught.value).splitlines()
    assert first.endswith("slices to be fetched again:")
    assert "slices 7, 12 hold the same values" in copies
    assert "filerted_9.ckpt: its backbone.layernorm.gamma is not the others'" in stranger


@pytest.mark.parametrize("strategy", [True, False])
def test_slices_missing_at_the_end_are_named(broken, random_arrays, strategy):
    for rank in (509, 510, 511):
        (broken / f"filerted_{rank}.ckpt").unlink()
    if strategy:
        write_strategy(broken / "strategy.ckpt", random_arrays, 64, 8)
    with pytest.raises(CheckpointError, match="3 of 512 slices are missing: 509 to 511"):
        open_source(broken, OpenOptions(model=RANDOM))


def test_tables_are_needed_and_never_unpickled(small):
    table = small / "word_embedding.npy"
    options = OpenOptions(model=RANDOM)
    content = table.read_bytes()
    table.unlink()
    with pytest.raises(CheckpointError, match=r"missing: backbone.word_embedding.\w+ \[96, 512\]"):
        open_source(small, options)
    table.write_bytes(content[:-4])
    with pytest.raises(CheckpointError, match=r"word_embedding.npy: 196,604 bytes, 196,608 are needed"):
        open_source(small, options)
    np.save(table, np.array([{}], object))
    with pytest.raises(CheckpointError, match="a pickle inside a .npy"):
        open_source(small, options)
    np.save(table, np.zeros((96, 256), np.float32))
    with pytest.raises(CheckpointError, match=r"differs: backbone.word_embedding"):
        open_source(small, options)


@pytest.mark.filterwarnings("ignore:invalid escape")  # of Python's parser, in damaged heads
def test_any_byte_of_a_tables_head_may_be_damaged(small):
    table = small / "word_embedding.npy"
    content = table.read_bytes()
    head = content.index(b"\n")
    for place in range(head):
        for byte in b"[(\\\n\0-":
            replace(table, content[:place] + bytes([byte]) + content[place + 1 :])
            try:
                found = _npy(table)
            except CheckpointError as error:
                assert str(error).startswith(f"{table}: ")
            else:
                assert found.shape == (96, 512) and found.pieces[0].dtype == "float32", (place, byte)


def contents(path):
    """Shape, type and bytes of every tensor of a slice."""
    file, content = read_ckpt(path), path.read_bytes()
    return {
        name: (one.shape, one.dtype, content[one.extents[0][0] :][: one.extents[0][1]])
        for name, one in file.tensors.items()
    }


def test_and_back(tmp_path, small_release, random_arrays):
    source = open_source(small_release, OpenOptions(model=RANDOM))
    write_release(tmp_path / "expected", random_arrays, dp=4, mp=2)
    export_released(source, tmp_path / "back", dp=4, mp=2, limits=QUIET)
    for rank in range(8):
        name = f"filerted_{rank}.ckpt"
        assert contents(tmp_path / "back" / name) == contents(tmp_path / "expected" / name)
    again = open_source(tmp_path / "back", OpenOptions(model=RANDOM))
    assert again.form == "released weights, 8 slices placed by the strategy ckpt_strategy.ckpt"
    assert_equal(again, random_arrays, RANDOM)
    with pytest.raises(CheckpointError, match="cannot be cut for dp 60 and mp 8"):
        export_released(source, tmp_path / "uneven", dp=60, limits=QUIET)


def test_numbers_in_words():
    assert ranges([3]) == "3" and ranges([9, 8, 7, 3, 12]) == "3, 7 to 9, 12"
