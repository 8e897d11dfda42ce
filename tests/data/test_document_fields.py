"""Positions, documents and loss mask against the official rule, and against what the official code made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.data.manifest import Vocabulary
from pangu_alpha.data.windows import document_fields, make_batch

EOD, PAD = 9, 6
VOCABULARY = Vocabulary("d" * 64, 1000, "<eot>", EOD, PAD)


def official_rule(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """After each end of document at i, row i + 1 on sees nothing up to i, and positions restart."""
    length = len(ids)
    mask, positions = np.tril(np.ones((length, length), np.uint8)), np.arange(length)
    for i in np.flatnonzero(ids == EOD):
        mask[i + 1 :, : i + 1] = 0
        positions[i + 1 :] = np.arange(length - i - 1)
    return mask, positions


def attention_mask(document_ids: np.ndarray) -> np.ndarray:
    same = document_ids[:, :, None] == document_ids[:, None, :]
    return np.tril(same).astype(np.uint8)


CASES = {
    "none": [1, 2, 3, 4],
    "first": [EOD, 2, 3, 4],
    "last": [1, 2, 3, EOD],
    "doubled": [1, EOD, EOD, 4],
    "first and doubled": [EOD, EOD, 3, EOD],
    "only": [EOD, EOD, EOD, EOD],
}


@pytest.mark.parametrize("ids", CASES.values(), ids=CASES.keys())
def test_the_official_rule_on_named_cases(ids):
    check(np.array([ids], np.int32))


def test_the_official_rule_on_random_rows():
    rng = np.random.default_rng(0)
    check(np.where(rng.random((40, 33)) < 0.2, EOD, rng.integers(10, 99, (40, 33))).astype(np.int32))
    check(np.full((1, 1), EOD, np.int32))


def check(ids: np.ndarray) -> None:
    positions, documents = document_fields(ids, EOD)
    assert positions.dtype == documents.dtype == np.int32
    masks = attention_mask(documents)
    for row in range(len(ids)):
        mask, expected = official_rule(ids[row])
        assert np.array_equal(positions[row], expected)
        assert np.array_equal(masks[row], mask)
        assert documents[row].tolist() == [np.sum(ids[row, :j] == EOD) for j in range(ids.shape[1])]


def test_what_the_official_code_made():
    # Made by the official 2021 code: document ends in mid-row, first, doubled and last, <pad> inside.
    official = np.load(Path(__file__).parent / "official_reset.npz")
    batch = make_batch(official["input_ids"], np.zeros(2), VOCABULARY)
    assert np.array_equal(batch["input_ids"], official["input_ids"][:, :-1])
    assert np.array_equal(batch["labels"], official["input_ids"][:, 1:])
    assert np.array_equal(batch["position_ids"], official["position_ids"])
    assert np.array_equal(attention_mask(batch["document_ids"]), official["attention_mask"])
    assert np.array_equal(batch["loss_mask"], official["loss_mask"])


def test_without_document_mask_a_row_is_one_document():
    windows = np.array([[1, EOD, PAD, 4, 5]], np.int32)
    batch = make_batch(windows, np.array([2]), VOCABULARY, document_mask=False)
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3]] and not batch["document_ids"].any()
    assert batch["loss_mask"].tolist() == [[1, 1, 0, 1]] and batch.source_ids.tolist() == [2]
    fields = batch.fields.values()
    assert [field.dtype.name for field in fields] == ["int32", "int32", "float32", "int32", "int32"]
    assert all(field.flags.c_contiguous for field in fields)
    assert batch.weights.tolist() == [3.0] and batch.weights.dtype == np.float32
