"""Items are found in real records: across windows and shards, not across documents; clean figures follow."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pangu_alpha.evaluation.contamination import (
    ItemText,
    Overlap,
    clean_results,
    clean_table,
    find_overlap,
    ngram_length,
    overlap_table,
)

CHARACTERS = "天下大势分久必合久合周末七国争并入于秦及灭之后楚汉。"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(folder, tokenizer, documents): records of several shards, with a vocabulary of single characters."""
    from pangu_alpha.data.preprocess import PreprocessConfig, preprocess
    from pangu_alpha.text.documents.read_options import ReadOptions
    from pangu_alpha.text.tokenizer import PanguTokenizer
    from pangu_alpha.text.vocabulary import train_vocabulary

    folder = tmp_path_factory.mktemp("contamination")
    rng = random.Random(1)
    texts = ["".join(rng.choices(CHARACTERS, k=70)) for _ in range(40)]
    train_vocabulary(texts, folder / "vocab.model", 50)
    (folder / "train.txt").write_text("\n\n".join(texts), "utf-8")
    config = PreprocessConfig(
        (str(folder / "train.txt"),), str(folder / "vocab.model"), str(folder / "train"), seq_length=16,
        windows_per_shard=30, pad_last=True, read=ReadOptions(split="blank_line"),
    )  # fmt: skip
    preprocess(config)
    return folder, PanguTokenizer(folder / "vocab.model"), texts


def plain(tokenizer, text, documents, n):
    """(grams, found) by comparing tuples of ids, document by document."""
    known = set()
    for document in documents:
        ids = tokenizer.encode(document)
        known |= {tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)}
    ids = tokenizer.encode(text)
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return len(grams), sum(gram in known for gram in grams)


def test_windows_come_in_the_order_of_the_stream(corpus):
    from pangu_alpha.data.manifest import open_records
    from pangu_alpha.data.windows import windows_in_order

    folder, tokenizer, texts = corpus
    records = open_records(folder / "train")
    assert len(records.files) > 2
    end = records.manifest.vocabulary.end_of_document_id
    wanted = [number for text in texts for number in (*tokenizer.encode(text), end)]
    blocks = [*windows_in_order(records, 7)]
    assert {len(block) for block in blocks[:3]} == {7}
    found = np.concatenate(blocks).reshape(-1)
    np.testing.assert_array_equal(found[: len(wanted)], wanted)
    assert set(found[len(wanted) :]) <= {tokenizer.pad_id}


def test_a_plain_comparison_finds_the_same(corpus):
    folder, tokenizer, texts = corpus
    rng = random.Random(2)
    made = ["".join(rng.choices(CHARACTERS, k=12)) for _ in range(20)]
    seen = [texts[number][start : start + 30] for number, start in ((0, 0), (17, 5), (39, 40))]
    across = [texts[3][-8:] + texts[4][:8]]  # the end of a document lies between
    items = [ItemText(f"i{number}", {"question": text}) for number, text in enumerate(made + seen + across)]
    for n in (1, 3, 5, 11):
        (found,) = find_overlap({"t": items}, folder / "train", tokenizer, n)
        wanted = [plain(tokenizer, item.parts["question"], texts, n) for item in items]
        assert [*zip(found.grams.tolist(), found.shared.tolist(), strict=True)] == wanted
    assert found.n == 11 and not found.dirty[-1] and found.dirty_ids == {"i20", "i21", "i22"}


def test_parts_are_looked_up_apart_and_n_follows_their_lengths(corpus):
    folder, tokenizer, texts = corpus
    items = [
        ItemText("a", {"passage": texts[0], "question": "楚汉。" * 3}),
        ItemText("b", {"passage": "秦" * 40, "question": texts[1][:20]}),
        ItemText("c", {"passage": "", "question": "秦"}),
    ]
    passage, question = find_overlap({"t": items}, [folder / "train"], tokenizer)
    assert (passage.part, question.part) == ("passage", "question")
    assert passage.ids == ("a", "b") and question.ids == ("a", "b", "c")
    assert passage.n == 13 and question.n == 8
    assert passage.dirty_ids == {"a"} and question.dirty_ids == {"b"} and question.too_short == 1
    table = overlap_table([passage, question])
    assert (
        "| t | passage | 13 | 2 | 0 | 1 | 50.00 |" in table
        and "| t | question | 8 | 3 | 1 | 1 | 33.33 |" in table
    )


def test_n_of_a_set():
    assert ngram_length([3] * 100) == 8 and ngram_length([500] * 100) == 13
    assert ngram_length([10] * 5 + [40] * 95) == 10
    assert ngram_length([10] * 4 + [12] * 96) == 12


def test_records_of_another_vocabulary_and_sets_without_text_are_refused(corpus, tmp_path):
    from pangu_alpha.text.tokenizer import PanguTokenizer
    from pangu_alpha.text.vocabulary import train_vocabulary

    folder, tokenizer, texts = corpus
    train_vocabulary(texts, tmp_path / "other.model", 48)
    with pytest.raises(ValueError, match="made with another tokenizer"):
        find_overlap(
            {"t": [ItemText("a", {"q": "秦"})]}, folder / "train", PanguTokenizer(tmp_path / "other.model")
        )
    with pytest.raises(ValueError, match="t: there is no text to look for"):
        find_overlap({"t": [ItemText("a", {"q": ""})]}, folder / "train", tokenizer)


def test_figures_of_clean_items(made, tmp_path):
    made.write(tmp_path, made.choice([0, 1, 2, 0, 0, 0, 0, 1], groups=[*"aabbccdd"]))
    names = tuple(f"item {number}" for number in range(8))
    grams = np.full(8, 5)
    question = Overlap("ocnli", "question", 8, names, grams, np.array([1, 2, 0, 0, 0, 0, 0, 0]))
    passage = Overlap("ocnli", "passage", 13, names[4:], grams[4:], np.array([0, 0, 0, 0]))
    first, second = clean_results(tmp_path, [question, passage])
    assert (first.clean_items, first.dirty_items) == (6, 2)
    assert (first.everything.value, first.clean.value, first.dirty.value) == (5 / 8, 3 / 6, 1.0)
    assert first.clean.interval.method == "bootstrap" and first.dirty.interval.method == "none"
    assert second.dirty is None and second.clean.value == 5 / 8
    assert "| ocnli_paper_0shot_seed0 | question | acc,none | 62.50 | 6 | 50.00 |" in clean_table(
        [first, second]
    )
    strange = Overlap("ocnli", "question", 8, names[1:], grams[1:], grams[1:])
    with pytest.raises(ValueError, match="item 'item 0' of ocnli_paper_0shot_seed0 was not looked up"):
        clean_results(tmp_path, [strange])
    with pytest.raises(ValueError, match="holds no result of c3"):
        clean_results(tmp_path, [Overlap("c3", "question", 8, names, grams, grams)])
