"""The scorer against an oracle that knows no cache, no batch and no packing; and what it refuses."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest

CONTEXT, WORDS = 160, 1000
_CHARACTERS = "天下大势分久必合久合周末七国争并入于秦及灭之后楚汉。，"
SIZES = {"vocab_size": WORDS, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "seq_length": CONTEXT}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """A small vocabulary's file."""
    from pangu_alpha.text.vocabulary import train_vocabulary

    rng = random.Random(1)
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.model"
    train_vocabulary(["".join(rng.choices(_CHARACTERS, k=40)) for _ in range(60)], path, 56)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, vocabulary, save_run):
    """A run's folder."""
    return save_run(tmp_path_factory.mktemp("run"), vocabulary, **SIZES)


@pytest.fixture(scope="module")
def scorer(run):
    """The scorer of most tests."""
    from pangu_alpha.evaluation import Scorer

    return Scorer(run)


class Oracle:
    """float64 log-softmax of the logits of full passes, one text at a time."""

    def __init__(self, folder):
        from pangu_alpha.inference.load import load_for_inference

        self.loaded = load_for_inference(folder, decoding=False)

    def __call__(self, prefix, whole):
        """float64 [n], the nats of the ids after the prefix, which the whole text begins with."""
        from mindspore import Tensor

        ids = np.zeros((1, CONTEXT), np.int32)
        ids[0, : len(whole) - 1] = whole[:-1]
        positions, mask, start = np.zeros_like(ids), np.zeros((1, CONTEXT, CONTEXT), np.float32), 0
        for place in range(CONTEXT):
            positions[0, place] = place - start
            mask[0, place, start : place + 1] = 1
            start = place + 1 if ids[0, place] == self.loaded.end_of_document else start
        logits = self.loaded.model(Tensor(ids), Tensor(positions), Tensor(mask)).asnumpy()[0]
        logits = logits.astype(np.float64) - logits.max(-1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        places = np.arange(len(prefix), len(whole))
        return -logs[places - 1, np.asarray(whole)[places]]


@pytest.fixture(scope="module")
def oracle(run):
    """The oracle of most tests."""
    return Oracle(run)


def items(end, seed=0):
    """For each prefix length, candidates of several lengths; prefixes begin alike, as few-shot prompts do."""
    rng = np.random.default_rng(seed)
    shots = rng.integers(10, WORDS, 70).tolist()
    result = []
    for length in (1, 7, 8, 9, 63, 64, 65, 127, 128, 129, CONTEXT - 1, CONTEXT):
        prefix = [*shots[:length], *rng.integers(10, WORDS, max(0, length - len(shots))).tolist()]
        room = CONTEXT + 1 - length
        tails = [rng.integers(10, WORDS, min(room, size)).tolist() for size in (1, 3, 20, 90)]
        if room > 5:
            tails[2][1] = end  # a document ends within the text
        result.append([(prefix, prefix + tail) for tail in tails])
    return result


def same_as_oracle(scorer, oracle, groups):
    """Compares nats and the best candidate of every group."""
    found = scorer.nats([pair for group in groups for pair in group])
    expected = [oracle(*pair) for group in groups for pair in group]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
    places = np.cumsum([0, *map(len, groups)])
    for start, stop in zip(places[:-1], places[1:], strict=True):
        means = [[nats.mean() for nats in every[start:stop]] for every in (found, expected)]
        assert np.argmin(means[0]) == np.argmin(means[1])
    assert max(each.max() for each in expected) > 10 and min(each.min() for each in expected) < 6
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_every_way_gives_the_oracles_nats(batch_size, run, oracle):
    from pangu_alpha.evaluation import Scorer

    groups = items(oracle.loaded.end_of_document)
    found = same_as_oracle(Scorer(run, batch_size), oracle, groups)
    assert [len(nats) for nats in found] == [
        len(whole) - len(prefix) for pairs in groups for prefix, whole in pairs
    ]


@pytest.mark.parametrize("order", ["norm_then_query", "query_then_norm"])
def test_so_do_other_operators_and_both_orders(order, tmp_path, vocabulary, save_run, monkeypatch):
    from pangu_alpha.evaluation import Scorer
    from pangu_alpha.model import operators

    folder = save_run(tmp_path, vocabulary, **SIZES, norm_order=order)
    expected = Oracle(folder)
    monkeypatch.setattr(operators, "library", lambda: None)
    same_as_oracle(Scorer(folder), expected, items(expected.loaded.end_of_document))


def test_what_earlier_calls_left_in_the_cache_changes_no_bit(run, oracle, scorer):
    groups = items(scorer.end_of_document)
    before = same_as_oracle(scorer, oracle, groups)
    rng = np.random.default_rng(9)
    scorer.nats([([1], [1, *rng.integers(10, WORDS, CONTEXT).tolist()]) for _ in range(20)])
    for one, other in zip(before, same_as_oracle(scorer, oracle, groups), strict=True):
        np.testing.assert_array_equal(one, other)


def test_order_and_repetition_change_no_bit(scorer):
    pairs = [pair for group in items(scorer.end_of_document) for pair in group]
    expected = scorer.nats(pairs)
    order = np.random.default_rng(1).permutation(len(pairs)).tolist()
    shuffled = scorer.nats([pairs[n] for n in order])
    twice = scorer.nats([*pairs, *pairs])
    for place, number in enumerate(order):
        np.testing.assert_array_equal(shuffled[place], expected[number])
    for number, each in enumerate(expected):
        np.testing.assert_array_equal(twice[number], each)
        np.testing.assert_array_equal(twice[number + len(pairs)], each)


def test_other_company_changes_only_the_last_bits(scorer):
    pairs = [pair for group in items(scorer.end_of_document) for pair in group]
    for pair, expected in zip(pairs, scorer.nats(pairs), strict=True):
        np.testing.assert_allclose(scorer.nats([pair])[0], expected, rtol=0, atol=1e-4)


def test_one_token_continuations_sum_to_one(scorer):
    for prefix in ([11], [40, 41, 42]):
        nats = scorer.nats([(prefix, [*prefix, word]) for word in range(WORDS)])
        assert np.exp(-np.concatenate(nats).astype(np.float64)).sum() == pytest.approx(1.0, abs=1e-5)


def test_the_chain_rule(scorer):
    both, first, second = scorer.nats([([5], [5, 6, 7]), ([5], [5, 6]), ([5, 6], [5, 6, 7])])
    np.testing.assert_allclose(both, [first[0], second[0]], rtol=0, atol=1e-4)


def test_unlikely_ids_do_not_all_cost_the_same(tmp_path, vocabulary, save_run):
    """The loss ends at 55.26 nats, by which eighteen such tokens would tie every candidate."""
    from mindspore import Tensor

    from pangu_alpha.evaluation import Scorer

    folder = save_run(tmp_path, vocabulary, **SIZES)
    scorer, expected = Scorer(folder), Oracle(folder)
    for loaded in (scorer._loaded, expected.loaded):
        table = loaded.model.word_embedding.table
        table.set_data(Tensor(table.asnumpy() * 12))
    pairs = [([30], [30, *range(start, start + 12)]) for start in range(100, 900, 100)]
    found = scorer.nats(pairs)
    for pair, nats in zip(pairs, found, strict=True):
        np.testing.assert_allclose(nats, expected(*pair), rtol=0, atol=1e-4)
    assert sum(int((nats > 56).sum()) for nats in found) > 20
    assert len({float(nats.sum()) for nats in found}) == len(pairs)


def test_shared_beginnings_and_equal_pairs_are_computed_once(run, monkeypatch):
    from pangu_alpha.evaluation import Scorer
    from pangu_alpha.inference.nats import NatsEngine

    scorer, counts, run_pass = Scorer(run), [], NatsEngine._run

    def counted(self, each):
        counts.append(each.count)
        return run_pass(self, each)

    monkeypatch.setattr(NatsEngine, "_run", counted)
    shots = list(range(100, 200))
    pairs = [(shots, [*shots, label, 300, 301, 302]) for label in range(500, 520)]
    scorer.nats(pairs * 3)
    assert sum(counts) == 100 + 20 * 3  # the last id of a text is only predicted


def test_few_graphs_serve_every_length(run, monkeypatch):
    from pangu_alpha.evaluation import Scorer

    scorer = Scorer(run)
    rng = np.random.default_rng(4)
    for length in range(2, CONTEXT + 2, 3):
        ids = rng.integers(10, WORDS, length).tolist()
        scorer.nats([(ids[:1], ids)] * (1 + length % 3))
        scorer.nats([(ids[:1], [*ids[:1], *rng.integers(10, WORDS, length - 1).tolist()]) for _ in range(4)])
    cells = scorer._engine._forward, scorer._engine._table
    assert sum(len(cell.compile_cache) for cell in cells) <= 14


def test_ids_count_from_where_prefix_and_text_part(scorer):
    whole = [20, 21, 22, 23, 24]
    (full,) = scorer.nats([([20, 21], whole)])
    (moved, equal) = scorer.nats([([20, 21, 99, 98], whole), (whole, whole)])
    np.testing.assert_array_equal(moved, full)
    assert equal.shape == (0,) and equal.dtype == np.float32
    assert scorer.nats([]) == []


def test_wrong_pairs_are_all_named(scorer):
    end = scorer.end_of_document
    pairs = [([5], [5, 6]), ([5], [6, 7]), ([5], [5] * (CONTEXT + 2)), ([5], [5, WORDS]), ([], [])]
    with pytest.raises(ValueError) as caught:
        scorer.nats(pairs)
    lines = str(caught.value).split("\n")
    assert len(lines) == 4 and lines[0].startswith("pair 1: prefix and text have no common beginning")
    assert lines[0].endswith(f"begin both with the end of document, {end}")
    assert lines[1] == ("pair 2: 162 ids, but at most 161 can be scored with a context of 160; shorten it")
    assert lines[2] == "pair 3: holds ids outside the vocabulary of 1000"
    assert lines[3].startswith("pair 4: prefix and text have no common beginning")


def test_weights_that_are_no_numbers_are_an_error(tmp_path, vocabulary, save_run):
    from mindspore import Tensor

    from pangu_alpha.evaluation import Scorer

    scorer = Scorer(save_run(tmp_path, vocabulary, **SIZES))
    table = scorer._loaded.model.word_embedding.table
    table.set_data(Tensor(table.asnumpy() * np.nan))
    with pytest.raises(ValueError, match="the nats are not finite: its weights hold NaN"):
        scorer.nats([([5], [5, 6])])


def test_a_batch_of_none_is_refused(run):
    from pangu_alpha.evaluation import Scorer

    with pytest.raises(ValueError, match="batch_size: 0 must be at least 1"):
        Scorer(run, 0)


def test_the_fingerprint_is_that_of_weights_and_vocabulary(run, scorer, tmp_path, vocabulary, save_run):
    from mindspore import Tensor

    from pangu_alpha.evaluation import Scorer

    copy = Scorer(shutil.copytree(run, tmp_path / "copy"), batch_size=2)
    assert copy.fingerprint == scorer.fingerprint and len(copy.fingerprint) == 64
    changed = Scorer(run)
    norm = changed._loaded.model.final_norm.gamma
    norm.set_data(Tensor(np.nextafter(norm.asnumpy(), 9, dtype=np.float32)))
    (tmp_path / "other").mkdir()
    larger = Scorer(save_run(tmp_path / "other", vocabulary, **{**SIZES, "seq_length": 170}))
    assert len({scorer.fingerprint, changed.fingerprint, larger.fingerprint}) == 3


def test_texts_are_continued_in_their_order_whatever_was_scored_between(run):
    from pangu_alpha.config.generate import SamplingConfig
    from pangu_alpha.evaluation import Scorer
    from pangu_alpha.inference.load import load_for_inference

    prompts = ["天下", "大势分久必合", "周末", "秦", "天下大势"]
    scorer = Scorer(run, batch_size=2)
    pair = ([5], [5, 6, 7])
    (before,) = scorer.nats([pair])
    found = scorer.generate(prompts, 6)
    np.testing.assert_array_equal(scorer.nats([pair])[0], before)
    assert scorer.generate(prompts[::-1], 6)[::-1] == found
    generator = load_for_inference(run).text_generator()
    greedy = SamplingConfig(greedy=True, max_new_tokens=6)
    alone = [generator.complete([each], greedy)[0].text for each in prompts]
    assert found == alone and len(set(found)) > 1
    stop = found[0][1]
    assert scorer.generate(prompts[:1], 6, [stop]) == [found[0][: found[0].index(stop)]]
    assert scorer.generate([], 6) == []
