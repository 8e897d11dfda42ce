from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

LENGTH = 17


@pytest.fixture(scope="module")
def loaded(exported):
    """The exported model by way of MindFormers' Auto class."""
    from mindformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(exported.folder))


@pytest.fixture(scope="module")
def tokenizer(exported):
    """The exported tokenizer by way of MindFormers' Auto class."""
    from mindformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(exported.folder))


def _batch(seed=0):
    from mindspore import Tensor

    ids = np.random.default_rng(seed).integers(10, 55, (2, LENGTH)).astype(np.int32)
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (2, 1))
    causal = np.tile(np.tril(np.ones((LENGTH, LENGTH), np.float32)), (2, 1, 1))
    return Tensor(ids), Tensor(positions), Tensor(causal)


def _copy(exported, tmp_path):
    return shutil.copytree(exported.folder, tmp_path / "copy")


def test_nothing_in_the_plain_path_imports_mindformers():
    script = """
import importlib, pkgutil, sys, pangu_alpha
adapters = ("pangu_alpha.integrations.mindformers", "pangu_alpha.integrations.lm_eval")
for module in pkgutil.walk_packages(pangu_alpha.__path__, "pangu_alpha."):
    # The adapters for lm-evaluation-harness need a package that is not always there, as their names say.
    if not module.name.startswith(adapters):
        importlib.import_module(module.name)
assert "pangu_alpha.cli.predict" in sys.modules
print("mindformers" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1:] == ["False"], result.stderr


def test_logits_are_ours_to_the_last_bit(exported, loaded):
    ids, positions, causal = _batch()
    expected = exported.network(ids, positions, causal).asnumpy()
    assert np.ptp(expected) > 1
    assert np.array_equal(loaded(ids).asnumpy(), expected)
    assert np.array_equal(loaded(ids, None, positions, causal).asnumpy(), expected)


def test_loss_is_that_of_training(exported, loaded):
    from mindspore import Tensor

    from pangu_alpha.training.loss import TokenLoss

    ids, positions, _ = _batch()
    numbers = ids.asnumpy().copy()
    numbers[1, 12:] = exported.tokenizer.pad_id
    inputs, labels = Tensor(numbers), Tensor(np.roll(numbers, -1, 1))
    one_document = Tensor(np.zeros_like(numbers))
    nll = TokenLoss(exported.network)(inputs, labels, positions, one_document).asnumpy()
    counts = numbers != exported.tokenizer.pad_id
    assert loaded(inputs, labels).asnumpy() == pytest.approx((nll * counts).sum() / counts.sum(), abs=1e-5)

    counts[:, :3] = False
    ignored = labels.asnumpy().copy()
    ignored[:, :3] = -100
    loss = loaded(inputs, Tensor(ignored)).asnumpy()
    assert loss == pytest.approx((nll * counts).sum() / counts.sum(), abs=1e-5)


def test_padding_mask_of_the_tokenizer_is_taken(loaded, tokenizer):
    from mindspore import Tensor

    rows = tokenizer(["天下大势，分久必合"] * 2, padding="max_length", max_length=LENGTH)
    ids, mask = (np.array(rows[name], np.int32) for name in ("input_ids", "attention_mask"))
    length = mask[0].sum()
    assert 1 < length < LENGTH and (ids[:, length:] == tokenizer.pad_token_id).all()
    ids[1, 0] += 1
    seen = loaded(Tensor(ids), attention_mask=Tensor(mask)).asnumpy()
    mask[:, 0] = 0
    unseen = loaded(Tensor(ids), attention_mask=Tensor(mask)).asnumpy()
    assert np.abs(seen[0] - seen[1])[1:length].max() > 1e-3
    assert np.abs(unseen[0] - unseen[1])[1:length].max() < 1e-6


@pytest.mark.parametrize(
    "text", ["话说天下大势，分久必合。", "", "a b\n\nc  <eod><pad>", "龘😀", " \u2582\n"]
)
def test_tokenizer_gives_our_ids_and_text(exported, tokenizer, text):
    ids = exported.tokenizer.encode(text)
    assert tokenizer(text)["input_ids"] == ids == tokenizer.encode(text)
    assert tokenizer.decode(ids) == exported.tokenizer.decode(ids)
    assert not exported.tokenizer.control_ids & set(ids)


def test_tokenizer_knows_its_controls(exported, tokenizer):
    ours = exported.tokenizer
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (ours.eot_id, ours.pad_id)
    assert set(tokenizer.all_special_ids) == ours.control_ids | {ours.unk_id}
    assert len(tokenizer) == tokenizer.vocab_size == ours.vocab_size
    ids = [ours.eod_id, *ours.encode("天下"), ours.pad_id, ours.eot_id]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "天下"
    assert tokenizer.decode(ids) == ours.decode(ids)


def test_tokenizer_saves_what_it_loads(tokenizer, tmp_path):
    from mindformers import AutoTokenizer

    tokenizer.save_pretrained(str(tmp_path / "again"), save_json=True)
    again = AutoTokenizer.from_pretrained(str(tmp_path / "again"))
    assert again.get_vocab() == tokenizer.get_vocab() and again.eos_token == "<eot>"


def test_a_vocabulary_is_replaced_whole_or_not_at_all(tokenizer, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    (tmp_path / "vocab.model").write_bytes(b"precious")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            tokenizer.save_vocabulary(str(tmp_path))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"precious"]
    tokenizer.save_vocabulary(str(tmp_path))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [tokenizer.pangu.vocab_file.read_bytes()]


def test_config_comes_back(exported, integration):
    from mindformers import AutoConfig

    config = AutoConfig.from_pretrained(str(exported.folder))
    assert type(config) is integration.PanguAlphaConfig and config.model_config == exported.config
    assert config.eos_token_id == exported.tokenizer.eot_id
    assert config.pad_token_id == exported.tokenizer.pad_id
    assert AutoConfig.from_pretrained(str(exported.folder), num_layers=5).model_config.num_layers == 5


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_layer": 2}, "num_layer: unknown key; did you mean 'num_layers'"),
        ({"hidden_size": 30, "num_heads": 4}, "not divisible by num_heads"),
        ({"vocab_size": "many", "dropout": 2.0}, "(?s)vocab_size.*"),
    ],
)
def test_bad_configs_are_refused(integration, keys, message):
    with pytest.raises(ValueError, match=message):
        integration.PanguAlphaConfig(**keys)


def test_paged_cache_is_refused(integration, exported):
    config = integration.PanguAlphaConfig(**dataclasses.asdict(exported.config), use_past=True)
    with pytest.raises(ValueError, match="use_past"):
        integration.PanguAlphaForCausalLM(config)


def test_model_saves_in_shards_what_it_loads(loaded, integration, tmp_path):
    from mindformers import AutoModel

    loaded.save_pretrained(str(tmp_path / "shards"), save_json=True, max_shard_size="50KB")
    assert len(list((tmp_path / "shards").glob("*.ckpt"))) > 1
    again = AutoModel.from_pretrained(str(tmp_path / "shards"))
    assert type(again) is integration.PanguAlphaForCausalLM
    ids, *_ = _batch()
    assert np.array_equal(again(ids).asnumpy(), loaded(ids).asnumpy())


def test_built_from_a_config_and_from_the_registry(exported, integration, loaded):
    from mindformers import AutoConfig, AutoModelForCausalLM
    from mindformers.models.build_model import build_network
    from mindformers.tools.register import MindFormerConfig

    fresh = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(exported.folder)))
    assert fresh.network.config == exported.config

    weights = str(exported.folder / "mindspore_model.ckpt")
    shape = {**dataclasses.asdict(exported.config), "checkpoint_name_or_path": weights}
    arch = {"type": "PanguAlphaForCausalLM"}
    built = build_network(MindFormerConfig(arch=arch, model_config={"type": "PanguAlphaConfig", **shape}))
    ids, *_ = _batch()
    assert np.array_equal(built(ids).asnumpy(), loaded(ids).asnumpy())


def test_greedy_generation_is_ours(exported, loaded):
    from pangu_alpha.config.generate import SamplingConfig
    from pangu_alpha.inference.generate import Generator

    prompt = exported.tokenizer.encode("天下大势，")
    generator = Generator(exported.network, exported.tokenizer.eot_id)
    (expected,) = generator.generate([prompt], SamplingConfig(greedy=True, max_new_tokens=8))
    generator.close()
    (row,) = loaded.generate([prompt], do_sample=False, max_new_tokens=8)
    new = [token for token in row.tolist()[len(prompt) :] if token != exported.tokenizer.eot_id]
    assert row.tolist()[: len(prompt)] == prompt and new == list(expected.ids)


def test_sampling_repeats_with_its_seed(exported, loaded, monkeypatch):
    # the numpy path of MindFormers, as its option postprocess_use_numpy chooses it; the other needs Ascend
    monkeypatch.setattr("mindformers.generation.logits_process.run_using_numpy", lambda: True)
    prompt = exported.tokenizer.encode("天下大势，")

    def sample(seed):
        (row,) = loaded.generate([prompt], do_sample=True, top_k=20, seed=seed, max_new_tokens=6)
        return row.tolist()

    assert sample(1) == sample(1) != sample(2)


def test_missing_and_other_weights_are_refused(exported, tmp_path):
    import mindspore as ms
    from mindformers import AutoModelForCausalLM

    folder = _copy(exported, tmp_path)
    weights = ms.load_checkpoint(str(folder / "mindspore_model.ckpt"))
    stranger = weights.pop("network.final_norm.gamma")
    ms.save_checkpoint({**weights, "network.stranger": stranger}, str(folder / "mindspore_model.ckpt"))
    with pytest.raises(RuntimeError) as caught:  # MindFormers puts its own error around every other
        AutoModelForCausalLM.from_pretrained(str(folder))
    reason = str(caught.value.__cause__)
    assert "missing: network.final_norm.gamma" in reason and "extra: network.stranger" in reason


def test_folder_without_a_vocabulary_or_of_another_model(exported, tmp_path):
    from mindformers import AutoConfig, AutoTokenizer

    folder = _copy(exported, tmp_path)
    (folder / "vocab.model").unlink()
    with pytest.raises(RuntimeError) as caught:
        AutoTokenizer.from_pretrained(str(folder))
    assert "has no vocab.model" in str(caught.value.__cause__)

    (folder / "config.json").write_text(json.dumps({"model_type": "pangu_alpha", "num_head": 4}), "utf-8")
    with pytest.raises(RuntimeError) as caught:
        AutoConfig.from_pretrained(str(folder))
    assert "did you mean 'num_heads'" in str(caught.value.__cause__)


def test_export_refuses_what_it_cannot_do(exported, integration, tmp_path):
    with pytest.raises(ValueError, match="exists already"):
        integration.save_for_mindformers(exported.run, exported.folder)
    with pytest.raises(ValueError, match="no checkpoint of a known form"):
        integration.save_for_mindformers(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [1.0, np.inf, np.nan])
def test_a_training_step_leaves_out_what_is_not_finite(integration, value):
    from mindspore import Tensor, nn, ops

    class Loss(nn.Cell):
        def __init__(self):
            super().__init__()
            self.linear = nn.Dense(2, 1, weight_init="ones")

        def construct(self, row):
            return ops.square(self.linear(row)).mean()

    network = Loss()
    optimizer = nn.Momentum(network.trainable_params(), 0.1, 0.0)
    step = integration.PanguAlphaTrainOneStepCell(network, optimizer, use_clip_grad=True)
    overflow = step(Tensor(np.array([[1.0, value]], np.float32)))[1]
    assert bool(overflow) == (not np.isfinite(value))
    changed = not np.array_equal(network.linear.weight.asnumpy(), np.ones((1, 2), np.float32))
    assert changed == bool(np.isfinite(value))


def test_chat_is_refused(loaded, tokenizer):
    with pytest.raises(ValueError, match="chat: PanGu-alpha is a base model, .* call `generate`"):
        loaded.chat(tokenizer, "你好")
