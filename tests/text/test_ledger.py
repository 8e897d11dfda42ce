"""Every character is kept or dropped for a reason; what does not add up is an error of ours."""

from __future__ import annotations

import json
import random

import pytest

from pangu_alpha.text.clean import Cleaner, CleanRules
from pangu_alpha.text.documents.reading import DocumentReader, ReadOptions
from pangu_alpha.text.ledger import CharacterLedger, LedgerError, total

SIGNS = [*"汉字，ab\n\n\n\r\t ", "\r\n", "\0", "\u200b", "\u3000", "\ufffd", "\ufeff", "\u2028", "\x85"]
LONG = "这一行要够长，才会在第二次出现时去掉，所以写得长一点。"
RULES = [
    CleanRules(),
    CleanRules(keep_blank_lines=True, fold_spaces=False),
    CleanRules(strip_invisible=False, min_line_characters=3, min_document_characters=20),
    CleanRules(min_line_han=0.5, drop_duplicate_lines=False),
]


def mess(rng: random.Random) -> str:
    return "".join(rng.choice([*SIGNS, LONG]) for _ in range(rng.randrange(60)))


@pytest.mark.parametrize("rules", RULES)
def test_the_cleaner_accounts_for_every_character(rules):
    rng, cleaner = random.Random(1), Cleaner(rules)
    given = kept = 0
    for _ in range(500):
        text = mess(rng)
        given, kept = given + len(text), kept + len(cleaner.clean(text))
        ledger = cleaner.ledger.checked("a text")  # exactly, after every document
        assert (ledger.given, ledger.kept) == (given, kept)
    assert 0 < kept < given


def test_each_reason_has_its_characters():
    cleaner = Cleaner(CleanRules(min_line_characters=2, min_line_han=0.5, min_document_characters=3))
    assert cleaner.clean(f"\ufeff{LONG}\r\n\n  短\t\n{LONG}\n一\nEnglish\n\ufffd好的\n") == f"{LONG}\n好的"
    assert cleaner.clean("二二") == ""
    assert cleaner.ledger.checked("a text").dropped == {
        "invisible_characters": 1,
        "replacement_characters": 1,
        "line_ends": 1,
        "spaces": 3,
        "blank_lines": 2,  # the second, and the one behind the last line end
        "short_lines": 4,
        "duplicate_lines": len(LONG) + 1,
        "foreign_lines": 8,
        "short_documents": 2,
    }


@pytest.mark.parametrize("split", ["file", "blank_line", "line"])
@pytest.mark.parametrize("invalid", ["replace", "skip"])
def test_the_reader_accounts_for_every_character(tmp_path, split, invalid):
    rng = random.Random(2)
    content = "".join(mess(rng) for _ in range(100)).encode() + b"\n\xff\n\n"
    (tmp_path / "a.txt").write_bytes(content)
    reader = DocumentReader(tmp_path / "a.txt", ReadOptions(split=split, invalid_utf8=invalid))
    kept = sum(map(len, reader))
    ledger = reader.ledger.checked("a.txt")
    assert ledger.kept == kept == reader.report.characters
    if split == "file":
        assert ledger.given == len(content.decode("utf-8", "replace"))
    assert ("skipped_documents" in ledger.dropped) == (invalid == "skip")


def test_the_reader_of_records_accounts_for_the_texts(tmp_path):
    texts = ["甲\0乙", " \n", "丙\ud800", ["丁", "戊"]]
    lines = [json.dumps({"text": text, "other": "x" * 50}) for text in texts]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    reader = DocumentReader(tmp_path / "a.jsonl")
    assert list(reader) == ["甲乙", "丙\ufffd", "丁\n戊"]
    expected = CharacterLedger(10, 7, {"nul_characters": 1, "empty_documents": 2})
    assert reader.ledger.checked("a.jsonl") == expected


def test_stages_and_sums():
    first, second = CharacterLedger(10, 7, {"a": 3}), CharacterLedger(7, 5, {"a": 1, "b": 1})
    assert first.then(second) == CharacterLedger(10, 5, {"a": 4, "b": 1})
    assert total([first, second]) == CharacterLedger(17, 12, {"a": 4, "b": 1})
    with pytest.raises(LedgerError, match="7 characters were handed on, 17 arrived"):
        first.then(CharacterLedger(17, 17))
    with pytest.raises(LedgerError, match=r"a\.txt: characters do not add up"):
        CharacterLedger(10, 7, {"a": 2}).checked("a.txt")
    with pytest.raises(LedgerError):
        CharacterLedger(1, -1, {"a": 2}).checked("a.txt")
