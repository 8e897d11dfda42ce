"""The lab's Megatron-style checkpoints of 1 to 8 model-parallel ranks, and our export of one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.export import ExportOptions, export
from pangu_alpha.checkpoint.moving.reading import coverage_problems, read_box
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError, map_tensors
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.tensors import whole

QUIET = ExportOptions(limits=Limits(workers=1, progress=False))
LINEAR = {
    "attention.query": ("attention.dense1", 0, False), "attention.key": ("attention.dense2", 0, False),
    "attention.value": ("attention.dense3", 0, False), "attention.dense": ("attention.projection", 1, True),
    "mlp.dense_h_to_4h": ("output.mapping", 0, True), "mlp.dense_4h_to_h": ("output.projection", 1, True),
}  # fmt: skip
PADDED = 1024  # rows of the table of 1000 pieces


@pytest.fixture(scope="module")
def whole_tensors(oracle):
    """The oracle's weights by Megatron's names, from the official ones by hand: array, axis that is cut."""
    official = {
        name.removeprefix("plain/param/backbone."): a for name, a in oracle.items() if "plain/param/" in name
    }
    table = np.concatenate(
        [official["word_embedding.embedding_table"], np.full((24, 64), np.nan, np.float32)]
    )
    tensors = {
        "embedding.word_embeddings.weight": (table, 0),
        "embedding.position_embeddings.weight": (official["position_embedding.embedding_table"], None),
        "topQueryEmbedding.top_query_embeddings.weight": (official["top_query_embedding.embedding_table"], 0),
        "transformer.final_layernorm.weight": (official["layernorm.gamma"], None),
        "transformer.final_layernorm.bias": (official["layernorm.beta"], None),
    }
    layers = {"layers.0": "blocks.0", "layers.1": "blocks.1", "topQueryLayer": "top_query_layer"}
    for theirs, layer in layers.items():
        for norm, name in (("input_layernorm", "layernorm1"), ("post_attention_layernorm", "layernorm2")):
            tensors[f"transformer.{theirs}.{norm}.weight"] = (official[f"{layer}.{name}.gamma"], None)
            tensors[f"transformer.{theirs}.{norm}.bias"] = (official[f"{layer}.{name}.beta"], None)
        for linear, (name, axis, flip) in LINEAR.items():
            weight = official[f"{layer}.{name}.weight"]
            weight = np.ascontiguousarray(weight.T if flip else weight)
            tensors[f"transformer.{theirs}.{linear}.weight"] = (weight, axis)
            tensors[f"transformer.{theirs}.{linear}.bias"] = (
                official[f"{layer}.{name}.bias"],
                0 if axis == 0 else None,
            )
    return tensors


def nested(tensors):
    """As Megatron-LM nests them: the tables in dicts, the transformer flat."""
    made = {}
    for name, array in tensors.items():
        head, rest = name.split(".", 1)
        keys = [head, *rest.split(".")] if "mbedding" in head else [head, rest]
        place = made
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = array
    return made


@pytest.fixture
def write(whole_tensors, tmp_path, write_torch):
    """Writes the checkpoint of a model-parallel size."""

    def write(ranks, root="model", name="mp_rank_{:02d}/model_optim_rng.pt", whole_queries=False, odd=None):
        """`odd` changes what rank 1 saves: its tensors and what stands beside them."""
        for rank in range(ranks):
            own = {
                name: array
                if axis is None or (whole_queries and "top_query_emb" in name)
                else np.ascontiguousarray(np.split(array, ranks, axis)[rank])
                for name, (array, axis) in whole_tensors.items()
            }
            beside = {"iteration": 1000}
            if odd and rank == 1:
                odd(own, beside)
            value = {root: {"language_model": nested(own)}, **beside}
            write_torch(tmp_path / "iter_0001000" / name.format(rank), value)
        (tmp_path / "latest_checkpointed_iteration.txt").write_text("1000")
        return tmp_path

    return write


def assert_same(source, ours):
    assert set(source.tensors["model"]) == set(ours)
    for name, stored in source.tensors["model"].items():
        assert coverage_problems(name, stored) == []
        np.testing.assert_array_equal(read_box(stored, whole(stored.shape)), ours[name], err_msg=name)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_every_model_parallel_size(write, ours, model_yaml, ranks):
    source = open_source(write(ranks), OpenOptions(model=model_yaml))
    assert source.form == f"Megatron-style, model-parallel size {ranks}"
    assert source.manifest.step == 1000
    assert source.tensors["model"]["word_embedding.table"].shape == (1000, 64)
    assert_same(source, ours)


def test_the_other_spellings(write, ours, model_yaml):
    path = write(2, "module", "mp_rank_{:02d}_model_states.pt", whole_queries=True)
    assert_same(open_source(path / "iter_0001000", OpenOptions(model=model_yaml)), ours)


def test_one_rank_by_its_file(write, ours, model_yaml):
    path = write(1) / "iter_0001000/mp_rank_00/model_optim_rng.pt"
    assert_same(open_source(path, OpenOptions(model=model_yaml)), ours)


def test_padding_must_be_told_from_the_vocabulary(write):
    with pytest.raises(CheckpointError, match="1024 rows, of which any number may be padding.*--model"):
        open_source(write(2))


def test_a_missing_rank_is_named(write, model_yaml):
    path = write(4)
    (path / "iter_0001000/mp_rank_02/model_optim_rng.pt").unlink()
    with pytest.raises(CheckpointError, match="missing: mp_rank_02"):
        open_source(path, OpenOptions(model=model_yaml))


def test_a_rank_of_another_iteration_is_refused(write, model_yaml):
    path = write(2, odd=lambda own, beside: beside.update(iteration=2000))
    with pytest.raises(
        CheckpointError, match="mp_rank_01/.* of iteration 2000, .*mp_rank_00/.* iteration 1000"
    ):
        open_source(path, OpenOptions(model=model_yaml))


def test_a_rank_of_other_heads_is_refused(tmp_path):
    from pangu_alpha.checkpoint.foreign.torch.megatron import _all_say
    from pangu_alpha.checkpoint.foreign.torch.torch_file import read_torch_file

    said = read_torch_file(Path(__file__).parent / "torch_2_13.pt")
    other = read_torch_file(Path(__file__).parent / "torch_2_13.pt")
    files = [tmp_path / "mp_rank_00", tmp_path / "mp_rank_01"]
    assert _all_say([said, other], files, tmp_path) == ({"num_heads": 4}, 1000)
    other["args"].state["num_attention_heads"] = 8
    with pytest.raises(CheckpointError, match="mp_rank_01 is of iteration 1000, 8 heads, .*_00 .* 4 heads"):
        _all_say([said, other], files, tmp_path)


@pytest.mark.parametrize(
    "name", ["transformer.final_layernorm.weight", "transformer.layers.1.mlp.dense_4h_to_h.bias"]
)
def test_what_all_ranks_hold_may_drift_but_not_differ(write, model_yaml, name):
    def changed(by):
        def odd(own, beside):
            own[name] = own[name] * np.float32(1 + by)

        return write(2, odd=odd)

    source = open_source(changed(by=0.01), OpenOptions(model=model_yaml))
    assert any("read from rank 0; others differ by up to 0.01 of the" in note for note in source.notes)
    with pytest.raises(CheckpointError, match=f"mp_rank_01/model_optim_rng.pt: its {name} is not rank 0's"):
        open_source(changed(by=0.5), OpenOptions(model=model_yaml))


def test_too_few_ranks_do_not_fit(write, model_yaml):
    path = write(4)
    (path / "iter_0001000/mp_rank_03/model_optim_rng.pt").unlink()
    with pytest.raises(
        CheckpointError, match=r"differs: transformer.layers.0.attention.query.weight \[64, 64\]"
    ):
        open_source(path, OpenOptions(model=model_yaml))


def test_missing_tensors_are_listed(write, whole_tensors, model_yaml):
    lost = whole_tensors.pop("transformer.layers.1.mlp.dense_h_to_4h.bias")
    try:
        with pytest.raises(
            CheckpointError, match=r"missing: transformer.layers.1.mlp.dense_h_to_4h.bias \[256\]"
        ):
            open_source(write(2), OpenOptions(model=model_yaml))
    finally:
        whole_tensors["transformer.layers.1.mlp.dense_h_to_4h.bias"] = lost


def test_the_released_vocabulary_is_known(tmp_path, write_torch):
    from pangu_alpha.checkpoint.foreign.torch.megatron import _vocabulary
    from pangu_alpha.checkpoint.tensors import Stored

    found = {"embedding.word_embeddings.weight": Stored((40960, 64), ())}
    rows, notes = _vocabulary(found, {}, OpenOptions(), tmp_path)
    assert rows == 40000 and "960 rows of the table beyond 40000" in notes[0]


def test_exported_and_back_bit_for_bit(checkpoint_of_ours, whole_tensors, ours, tmp_path):
    export(open_source(checkpoint_of_ours), tmp_path / "made.safetensors", "megatron", QUIET)
    arrays = map_tensors(tmp_path / "made.safetensors")
    assert set(arrays) == set(whole_tensors)
    for name, (array, _) in whole_tensors.items():
        np.testing.assert_array_equal(
            arrays[name], array[:1000] if len(array) == PADDED else array, err_msg=name
        )
    assert_same(open_source(tmp_path / "made.safetensors"), ours)


def test_code_in_a_rank_is_refused(tmp_path, write_torch):
    write_torch(tmp_path / "mp_rank_00/model_optim_rng.pt", None, b"cos\nsystem\n(X\x04\x00\x00\x00truetR.")
    with pytest.raises(CheckpointError, match=r"os\.system.*nothing was run"):
        open_source(tmp_path)


def test_heads_and_iteration_are_read_from_what_torch_wrote():
    from pangu_alpha.checkpoint.foreign.torch.megatron import _said
    from pangu_alpha.checkpoint.foreign.torch.torch_file import read_torch_file

    real = Path(__file__).parent / "torch_2_13.pt"
    assert _said(read_torch_file(real)) == ({"num_heads": 4}, 1000)


@pytest.fixture
def arguments(monkeypatch):
    """Lets every rank's file hold the program's arguments, as Megatron-LM's own files do."""
    from pangu_alpha.checkpoint.foreign.torch import megatron
    from pangu_alpha.checkpoint.foreign.torch.torch_file import read_torch_file

    def put(**said):
        def reading(path):
            args = read_torch_file(Path(__file__).parent / "torch_2_13.pt")["args"]
            args.state = said
            return {**read_torch_file(path), "args": args}

        monkeypatch.setattr(megatron, "read_torch_file", reading)

    return put


ARGUMENTS = {
    "num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 32,
    "ffn_hidden_size": None, "padded_vocab_size": PADDED, "model_parallel_size": 2,
}  # fmt: skip


def test_sizes_among_the_arguments_that_fit(write, ours, model_yaml, arguments):
    arguments(**ARGUMENTS)
    assert_same(open_source(write(2), OpenOptions(model=model_yaml)), ours)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_layers": 3}, "num_layers with the query layer: args in .*00.* says 4, the tensors show 3"),
        ({"hidden_size": 128}, "hidden_size: .* says 128, the tensors show 64"),
        ({"num_attention_heads": 8}, "num_heads: --model says 4, args in .* says 8"),
        ({"max_position_embeddings": 1024}, "max_position_embeddings: .* says 1024, the tensors show 32"),
        ({"ffn_hidden_size": 128}, "ffn_hidden_size: .* says 128, PanGu-alpha has 256"),
        ({"padded_vocab_size": 40960}, "padded_vocab_size: .* says 40960, the tensors show 1024"),
        ({"model_parallel_size": 4}, "model_parallel_size: .* says 4, the tensors show 2"),
        ({"num_layers": "2"}, "args in .*: num_layers is '2', which is no size"),
    ],
)
def test_sizes_among_the_arguments_are_compared(write, model_yaml, arguments, change, said):
    arguments(**{**ARGUMENTS, **change})
    with pytest.raises(CheckpointError, match=said):
        open_source(write(2), OpenOptions(model=model_yaml))


def test_a_table_is_not_cut_to_a_fraction(write, tmp_path):
    small = tmp_path / "small.yaml"
    small.write_text(
        "model: {vocab_size: 1000, hidden_size: 64, num_layers: 3, num_heads: 4, seq_length: 32}\n"
    )
    path = write(1)
    assert open_source(path, OpenOptions(model=str(small))).manifest.config["model"]["vocab_size"] == 1000
    from pangu_alpha.checkpoint.foreign.torch.megatron import _vocabulary
    from pangu_alpha.checkpoint.tensors import Stored

    found = {"embedding.word_embeddings.weight": Stored((40960, 64), ())}
    assert _vocabulary(found, {}, OpenOptions(model=str(small)), tmp_path) == (40960, ())


@pytest.mark.parametrize("front", ["module.", "_orig_mod."])
def test_a_wrapper_around_the_language_model(whole_tensors, ours, model_yaml, tmp_path, write_torch, front):
    tensors = {f"{front}{name}": array for name, (array, _) in whole_tensors.items()}
    write_torch(tmp_path / "mp_rank_00/model_optim_rng.pt", {"model": {"language_model": tensors}})
    source = open_source(tmp_path, OpenOptions(model=model_yaml))
    assert_same(source, ours)
    assert f"{front!r} taken off the names of {len(tensors)} tensors" in source.notes


def test_a_lost_layer_of_a_rank_is_named(write, whole_tensors, model_yaml):
    lost = {name: whole_tensors.pop(name) for name in [*whole_tensors] if "layers.0." in name}
    try:
        with pytest.raises(
            CheckpointError, match="missing: layers 0; 1 are there, named transformer.layers.N"
        ):
            open_source(write(2), OpenOptions(model=model_yaml))
    finally:
        whole_tensors.update(lost)


@pytest.mark.parametrize(
    "word", ["../iter_0001000", "/etc", "..", "iter_0001000/mp_rank_00", "a" * 5000, "9" * 5000]
)
def test_the_newest_iteration_is_a_folder_here(write, ours, model_yaml, word):
    path = write(1)
    (path / "latest_checkpointed_iteration.txt").write_text(word)
    with pytest.raises(CheckpointError, match="no checkpoint of a known form"):
        open_source(path, OpenOptions(model=model_yaml))


@pytest.mark.parametrize("shape", [(), (64,)])
def test_a_table_of_another_rank_is_named(whole_tensors, model_yaml, tmp_path, write_torch, shape):
    tensors = {name: array for name, (array, _) in whole_tensors.items()}
    tensors["embedding.word_embeddings.weight"] = np.zeros(shape, np.float32)
    for rank in range(2):
        write_torch(tmp_path / f"mp_rank_{rank:02d}/model_optim_rng.pt", {"model": tensors})
    with pytest.raises(
        CheckpointError, match=f"embedding.word_embeddings.weight.*{'few dim' if not shape else ''}"
    ):
        open_source(tmp_path, OpenOptions(model=model_yaml))
