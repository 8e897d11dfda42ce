"""The identities of a ledger, one by one."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pangu_alpha.corpus.engine import Count, Ledger, add_up, count_texts


def balanced() -> Ledger:
    ledger = Ledger(read=Count(5, 100, 300))
    ledger.drop("too_short", Count(2, 10, 30))
    ledger.drop("nothing", Count())
    ledger.keep(Count(3, 90, 270), Count(3, 85, 255))
    ledger.removed["special"] += 7
    ledger.added += 2
    ledger.changed["converted"] += 1
    return ledger


def test_a_ledger_balances_and_survives_json():
    ledger = balanced()
    assert not [*ledger.faults()] and "nothing" not in ledger.dropped
    assert Ledger.of(ledger.plain()) == ledger


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("read", Count(6, 100, 300), "in Count"),
        ("read", Count(5, 101, 300), "in Count"),
        ("read", Count(5, 100, 299), "in Count"),
        ("out", Count(2, 85, 255), "documents kept, but 2 out"),
        ("added", 3, "characters kept, but"),
        ("out", Count(3, 84, 255), "characters kept, but"),
    ],
)
def test_every_count_that_is_off_is_seen(field, value, said):
    ledger = balanced()
    setattr(ledger, field, value)
    assert any(said in fault for fault in ledger.faults())


def test_negative_counts_are_seen():
    ledger = balanced()
    ledger.drop("more", Count(1, -5, 0))
    ledger.keep(Count(-1, 5, 0), Count(-1, 5, 0))
    assert [*ledger.faults()] == ["a count is negative"]


def test_texts_are_counted_in_code_points_and_bytes():
    assert count_texts(pa.array(["汉字a", "", "𠀀"])) == Count(3, 4, 7 + 4)
    assert count_texts(pa.array([], pa.string())) == Count()


def test_ledgers_of_items_add_up_by_source():
    one, other = balanced(), balanced()
    total = add_up([{"web": one.plain()}, {"books": other.plain()}, {"web": other.plain()}])
    assert [*total] == ["books", "web"]
    assert total["web"].read == Count(10, 200, 600) and total["web"].dropped["too_short"] == Count(4, 20, 60)
    assert total["web"].removed == {"special": 14} and total["web"].changed == {"converted": 2}
    assert not [*total["web"].faults()]
