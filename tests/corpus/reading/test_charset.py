from __future__ import annotations

import pytest

from pangu_alpha.corpus.reading.charset import decode, meta_charset, rare_share, stated_charset

SIMPLIFIED = "天下大势，分久必合，合久必分。周末七国分争，并入于秦。及秦灭之后，楚、汉分争，又并入于汉。"
TRADITIONAL = "天下大勢，分久必合，合久必分。周末七國分爭，併入於秦。及秦滅之後，楚、漢分爭，又併入於漢。"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
GARBLED = SIMPLIFIED.encode("utf-8").decode("gb18030", "ignore")


@pytest.mark.parametrize(
    "stated", ["", "utf-8", "gb2312", "GBK", "big5", "iso-8859-1", "nonsense", "utf-16", "base64"]
)
@pytest.mark.parametrize(
    ("text", "encoding"),
    [(SIMPLIFIED, "utf-8"), (SIMPLIFIED, "gb18030"), (TRADITIONAL, "utf-8"), (TRADITIONAL, "big5hkscs")],
)
def test_chinese_is_read_whatever_the_header_states(text, encoding, stated):
    found = decode(text.encode(encoding), stated)
    assert (found.text, found.charset) == (text, encoding)


def test_the_header_goes_before_the_meta_tag_and_both_before_trial():
    raw = SIMPLIFIED.encode("gb18030")
    assert decode(raw, "gb2312", "big5").by == "header"
    assert decode(raw, "", "gb2312").by == "meta"
    assert decode(raw).by == "trial"
    assert decode(raw, "big5", "gb2312").by == "meta"  # the header is wrong


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides(encoding):
    found = decode(SIMPLIFIED.encode(encoding), "gb2312")
    assert (found.text, found.by) == (SIMPLIFIED, "mark")


def test_gb2312_means_gb18030():
    text = SIMPLIFIED + "镕㐂"  # characters that GB 2312 lacks
    assert decode(text.encode("gb18030"), "gb2312").text == text


@pytest.mark.parametrize("encoding", ["shift_jis", "euc_jp", "iso2022_jp"])
def test_stated_japanese_is_read_as_such(encoding):
    assert decode((JAPANESE * 5).encode(encoding), encoding).text == JAPANESE * 5


def test_ascii_needs_no_statement():
    assert decode(b"<p>plain</p>", "gb2312").charset == "ascii"
    assert decode(b"", "").text == ""


def test_bytes_that_are_no_text_are_refused():
    assert decode(bytes(range(128, 256)) * 20) is None
    assert decode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20) is None


def test_a_text_that_was_garbled_before_is_refused():
    """UTF-8 once read as GB 18030 is Han, but rare ones."""
    assert rare_share(GARBLED) > 0.5
    assert decode(GARBLED.encode("utf-8"), "utf-8") is None


def test_few_bad_bytes_are_replaced():
    raw = (SIMPLIFIED * 30).encode("utf-8")
    assert decode(raw[:3] + b"\xff" + raw[3:]).text.count("\ufffd") == 1


def test_statements_are_found():
    assert stated_charset('text/html; Charset="GBK"') == "GBK"
    assert meta_charset(b'<meta http-equiv="Content-Type" content="text/html; charset=gb2312">') == "gb2312"
    assert meta_charset(b"<META charset='big5'>") == "big5"
    assert meta_charset(b'<?xml version="1.0" encoding="utf-8"?>') == "utf-8"
    assert meta_charset(b"<p>charset=big5") == ""
