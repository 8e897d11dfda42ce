from __future__ import annotations

import pytest

from pangu_alpha.text.clean import Cleaner, CleanReport, CleanRules


def cleaned(text: str, **rules: object) -> tuple[str, CleanReport]:
    cleaner = Cleaner(CleanRules(**rules))
    return cleaner.clean(text), cleaner.report


def test_invisible_characters_are_dropped_and_counted():
    text, report = cleaned("\ufeff汉\u200b朝\0天\x07下\u202e三\xad国")
    assert text == "汉朝天下三国"
    assert report.invisible_characters == 6


def test_spaces_are_folded_and_line_ends_unified():
    text, report = cleaned("\t\u3000话说　天下\xa0\xa0大势 \r\n第二行\r第三行\u2028第四行\x0b第五行")
    assert text == "话说 天下 大势\n第二行\n第三行\n第四行\n第五行"
    assert (report.lines_in, report.lines_out) == (5, 5)


def test_blank_lines():
    source = "\n甲\n\n \n乙\n\n"
    assert cleaned(source)[0] == "甲\n乙"
    text, report = cleaned(source, keep_blank_lines=True)
    assert text == "甲\n\n乙"
    assert report.blank_lines >= 1


def test_long_lines_are_kept_once_over_all_documents_and_short_ones_may_repeat():
    cleaner = Cleaner()
    line = "这本书写得非常好，值得每一个人去读。"
    first = cleaner.clean(f"诗曰：\n{line}\n诗曰：\n{line}")
    second = cleaner.clean(f"{line}\n又及")
    assert first == f"诗曰：\n{line}\n诗曰："
    assert second == "又及"
    assert cleaner.report.duplicate_lines == 2
    assert cleaned(f"{line}\n{line}", drop_duplicate_lines=False)[0].count(line) == 2


def test_short_and_foreign_lines():
    source = "短\nThis line is English only\n这一行是中文 with a bit of English\n𠀀𠀁㐀〇汉"
    text, report = cleaned(source, min_line_characters=2, min_line_han=0.2)
    assert text == "这一行是中文 with a bit of English\n𠀀𠀁㐀〇汉"
    assert (report.short_lines, report.foreign_lines) == (1, 1)


def test_counts_account_for_every_line_and_document():
    cleaner = Cleaner(CleanRules(min_line_characters=2, min_line_han=0.5, min_document_characters=5))
    texts = [
        "",
        "abc def",
        "话说天下大势，分久必合。\n\n一\nabc\n话说天下大势",
        "话说天下大势，分久必合。" * 2 + "\n尾",
    ]
    kept = list(cleaner.clean_all(texts))
    report = cleaner.report
    assert kept == ["话说天下大势，分久必合。\n话说天下大势", "话说天下大势，分久必合。" * 2]
    dropped = report.blank_lines + report.duplicate_lines + report.short_lines + report.foreign_lines
    assert report.lines_in == report.lines_out + dropped
    assert report.documents_in == 4 == report.documents_out + report.short_documents
    assert report.characters_out == sum(map(len, kept))
    assert report.characters_in == sum(map(len, texts))


def test_reports_add_up():
    assert CleanReport(1, 2, 3) + CleanReport(10, 20, 30) == CleanReport(11, 22, 33)


def test_bad_rules_are_reported_together():
    with pytest.raises(ValueError, match=r"(?s)min_line_characters: -1 .*min_line_han: 2.0 must lie in"):
        CleanRules(min_line_characters=-1, min_line_han=2)
