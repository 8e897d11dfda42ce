"""Scores of a small run: the operators they are computed by, what they are, and what is refused."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

_CHARACTERS = "天下大势分久必合久合周末七国争并入于秦及灭之后楚汉。"
SHAPE = {"vocab_size": 60, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "seq_length": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A vocabulary, records to train on and held-out ones."""
    from pangu_alpha.data.preprocess import PreprocessConfig, preprocess
    from pangu_alpha.text.vocabulary import train_vocabulary

    folder = tmp_path_factory.mktemp("evaluation")
    rng = random.Random(1)
    texts = ["".join(rng.choices(_CHARACTERS, k=40)) for _ in range(60)]
    train_vocabulary(texts, folder / "vocab.model", 50)
    for name, part in (("train", texts[:40]), ("held_out", texts[40:])):
        (folder / f"{name}.txt").write_text("\n\n".join(part), "utf-8")
        preprocess(
            PreprocessConfig(
                (str(folder / f"{name}.txt"),), str(folder / "vocab.model"), str(folder / name), seq_length=16
            )
        )
    return folder


@pytest.fixture(scope="module")
def save(folder, cpu):
    """Writes a checkpoint of a small model, its weights times a factor."""
    from pangu_alpha.checkpoint.native.format import Manifest, write_checkpoint
    from pangu_alpha.config.model import ModelConfig
    from pangu_alpha.config.schema import to_mapping
    from pangu_alpha.model.pangu import PanguAlpha

    config = ModelConfig(**SHAPE)
    arrays = {name: each.asnumpy() for name, each in PanguAlpha(config, seed=7).parameters_and_names()}

    def write(name, factor=1.0):
        path = folder / name
        scaled = {key: (array * factor).astype(np.float32) for key, array in arrays.items()}
        write_checkpoint(path, {"model": scaled}, Manifest(3, 0, {"model": to_mapping(config)}))
        return str(path)

    return write


@pytest.fixture(scope="module")
def good(save):
    """An ordinary checkpoint."""
    return save("good")


@pytest.fixture
def compare(folder):
    """compare_with_baselines on the folder's records."""
    from pangu_alpha.evaluation.perplexity import compare_with_baselines

    def run(checkpoint, records="held_out", train="train", batch_size=4):
        vocabulary = str(folder / "vocab.model")
        return compare_with_baselines(
            checkpoint, str(folder / records), str(folder / train), vocabulary, batch_size
        )

    return run


def test_whole_sequences_are_scored_by_the_operators_for_them(good, compare, monkeypatch):
    from pangu_alpha.evaluation import perplexity
    from pangu_alpha.model import operators
    from pangu_alpha.model.operators import cpu, plain

    monkeypatch.setattr(operators, "library", lambda: None)  # the kernels serve both
    used, load = [], perplexity.load_for_inference

    def watch(*arguments, **options):
        loaded = load(*arguments, **options)
        used.append(loaded.model.operators)
        return loaded

    monkeypatch.setattr(perplexity, "load_for_inference", watch)
    found = compare(good)
    assert used[0].affine is cpu.Affine and used[0].cross_entropy is cpu.TiedCrossEntropy
    monkeypatch.setattr(
        perplexity, "load_for_inference", lambda *a, **k: watch(*a, **{**k, "decoding": True})
    )
    before = compare(good)
    assert used[1].attention is plain.AttentionCore
    for new, old in zip(found, before, strict=True):
        assert new.nats == pytest.approx(old.nats, rel=1e-5)
        assert (new.tokens, new.characters) == (old.tokens, old.characters)


def test_the_batch_size_changes_nothing_and_is_no_larger_than_the_set(good, compare):
    scores = [compare(good, batch_size=size) for size in (1, 4, 10**12)]
    assert scores[0][0].nats == pytest.approx(np.log(60), rel=0.05)  # it knows nothing yet
    for other in scores[1:]:
        assert other[0].nats == pytest.approx(scores[0][0].nats, rel=1e-5)
        assert other[0].tokens == scores[0][0].tokens


def test_weights_that_are_no_numbers_have_no_perplexity(save, compare):
    with pytest.raises(ValueError, match="broken: the loss of the held-out tokens is nan"):
        compare(save("broken", np.nan))


def test_records_of_padding_alone_are_refused(good, compare, monkeypatch):
    from pangu_alpha.evaluation import perplexity

    class Padding(perplexity.ValidationBatches):
        def __iter__(self):
            for batch in super().__iter__():
                mask = np.zeros_like(batch["loss_mask"])
                yield replace(batch, fields={**batch.fields, "loss_mask": mask})

    monkeypatch.setattr(perplexity, "ValidationBatches", Padding)
    with pytest.raises(ValueError, match="held_out: all of it is padding"):
        compare(good)
