"""Converts text in any encoding to UTF-8 bytes, and refuses text that is in another encoding than stated.

A few bad bytes pass through, for the reader of documents to replace or refuse. A stretch of text with more
of them is most likely in another encoding, and the error suggests which.
"""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Iterable, Iterator

from pangu_alpha.config.schema import nearest
from pangu_alpha.files.shown import quoted, shown

UTF8 = "utf-8"
# Encodings to try on a text that is not in the stated one. Within a family the widest comes last.
TRIED = ("gb18030", "big5", "cp950", "big5hkscs", "utf-16-le", "utf-16-be", UTF8)
NAMES = (UTF8, "gb18030", "gbk", "big5", "cp950", "big5hkscs", "utf-16", "utf-16-le", "utf-16-be", "utf-32")

_MARKS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_STRETCH = 1 << 20  # bytes that are judged together
_SAMPLE = 1 << 16  # bytes that are tried in other encodings
_CONTINUED = bytes(range(0x80, 0xC0))  # continuation bytes of UTF-8, which cannot begin a character
_FEW = 3  # bad places that even the shortest text may have
_LIKELY = 0.75  # share of everyday characters from which a text counts as Chinese
_BAD = "\udcff"  # stands for undecodable bytes; it is written as the byte 0xff, which UTF-8 never contains
_HAN = re.compile("[\u4e00-\u9fff]")
_NOT_TEXTS = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"}


def _take_as_bad(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return _BAD, error.end


codecs.register_error("pangu_alpha.bad", _take_as_bad)


def known_encoding(name: str) -> str:
    """Returns Python's own name of an encoding.

    Raises:
        ValueError: There is no encoding of that name, or it does not encode text.
    """
    try:
        codec = codecs.lookup(name)
        b"text".decode(codec.name, "ignore")  # raises for a codec that does not decode bytes to text
    except (LookupError, ValueError) as error:
        raise ValueError(f"no encoding named {quoted(name)}; {nearest(name, NAMES)}") from error
    if codec.name in _NOT_TEXTS:
        raise ValueError(f"{quoted(name)} is no encoding of files of text; {nearest(name, NAMES)}")
    return codec.name


def as_utf8(chunks: Iterable[bytes], encoding: str, most: float, where: object) -> Iterator[bytes]:
    """Yields a text as UTF-8 bytes; each undecodable place becomes the byte 0xff.

    Args:
        chunks: The bytes of one file in order.
        encoding: A name that `known_encoding` accepts.
        most: Largest tolerated share of bad places among the bytes of a stretch of 1 MiB.
        where: The file's name, for error messages.

    Raises:
        ValueError: More of the text is bad than `most` allows; the message gives the place where it begins
            and the likely encoding.
    """
    judge = Judge(encoding, most, where)
    gathered: list[bytes] = []
    size = 0
    for chunk in chunks:
        gathered.append(chunk)
        size += len(chunk)
        if size >= _STRETCH:
            yield judge.converted(b"".join(gathered), last=False)
            gathered, size = [], 0
    rest = judge.converted(b"".join(gathered), last=True)
    if rest:
        yield rest


class Judge:
    """Converts the stretches of one text one after another, and raises if the text is in another encoding.

    Args:
        encoding: Stated encoding of the text.
        most: See `as_utf8`.
        where: The file's name, for error messages.
    """

    def __init__(self, encoding: str, most: float, where: object) -> None:
        self._encoding = known_encoding(encoding)
        self._most, self._where = most, where
        self._decoder = codecs.getincrementaldecoder(self._encoding)("pangu_alpha.bad")
        self._bytes = self._lines = 0  # counted over the stretches before this one
        self._size = self._bad = 0  # bytes and bad places of the values since the last `settle`
        self._suspect: tuple[object, bytes, str] | None = None  # the first of these values with a bad place

    def converted(self, raw: bytes, last: bool) -> bytes:
        """Converts one stretch to UTF-8.

        Args:
            last: Whether the text ends with this stretch.

        Raises:
            ValueError: See `as_utf8`.
        """
        if not self._bytes:
            self._refuse_mark(raw)
        pending = self._decoder.getstate()[0] if self._encoding == UTF8 else b""
        try:
            text = self._decoder.decode(raw, last)
        except UnicodeError as error:  # UTF-16 or UTF-32 without a byte order mark
            name = self._encoding
            raise ValueError(
                f"{shown(self._where)}: {error}; give --encoding {name}-le or {name}-be"
            ) from error
        bad = text.count(_BAD)
        if bad and not self._tolerable(bad, raw, text, len(raw)):
            raise ValueError(self._fault(bad, raw, text, len(raw), len(pending)))
        if self._encoding != UTF8:
            self._refuse_utf8(raw, text)
        utf8 = raw if self._encoding == UTF8 else text.encode(UTF8, "surrogateescape")
        self._bytes += len(raw)
        self._lines += utf8.count(b"\n")
        return utf8

    def converted_value(self, raw: bytes, place: object) -> bytes:
        """Converts one cell of a table to UTF-8; cells are judged by the MiB, not singly (see `settle`)."""
        text = codecs.decode(raw, self._encoding, "pangu_alpha.bad")
        bad = text.count(_BAD)
        if bad and self._suspect is None:
            self._suspect = (place, raw, text)
        self._size, self._bad = self._size + len(raw), self._bad + bad
        if self._size >= _STRETCH:
            self.settle()
            self._bytes += len(raw)
        return raw if self._encoding == UTF8 else text.encode(UTF8, "surrogateescape")

    def settle(self) -> None:
        """Judges the values converted since the last call.

        Raises:
            ValueError: See `as_utf8`.
        """
        if self._suspect is not None:
            place, raw, text = self._suspect
            if not self._tolerable(self._bad, raw, text, self._size):
                self._where = f"{self._where}: {place}"
                raise ValueError(self._fault(self._bad, raw, text, self._size))
        self._size, self._bad, self._suspect = 0, 0, None

    def _tolerable(self, bad: int, raw: bytes, text: str, size: int) -> bool:
        # The short rest at the end of a long text is judged as if it were a whole stretch.
        size = size if not self._bytes else max(size, _STRETCH)
        if bad > max(_FEW, self._most * size):
            return False
        # Very short texts need another test: a title in GBK has only three bad places, and no valid UTF-8.
        return self._most >= 1 or bad > _FEW or bool(_HAN.search(text)) or not self._likely(raw, 0)

    def _refuse_mark(self, raw: bytes) -> None:
        name = next((name for mark, name in _MARKS if raw.startswith(mark)), self._encoding)
        if not self._encoding.startswith(name):
            raise ValueError(
                f"{shown(self._where)}: the file is {name.upper()}; convert it to UTF-8, or give "
                f"--encoding {name}"
            )

    def _refuse_utf8(self, raw: bytes, text: str) -> None:
        """Refuses UTF-8 text: in another encoding it often decodes without an error, to nonsense."""
        if raw.isascii() or _first_bad(raw.lstrip(_CONTINUED)) is not None:
            return
        if _usual(raw.decode(UTF8, "ignore"), UTF8) > _usual(text, self._encoding):
            raise ValueError(
                f"{shown(self._where)}: the file is UTF-8, not {self._encoding}; leave out --encoding for it"
            )

    def _fault(self, bad: int, raw: bytes, text: str, size: int, pending: int = 0) -> str:
        before = text[: text.index(_BAD)]
        start = max(len(before.encode(self._encoding, "replace")) - pending, 0)
        line = self._lines + before.count("\n") + 1
        name = "UTF-8" if self._encoding == UTF8 else self._encoding
        byte = f"byte 0x{raw[start]:02x} at offset {self._bytes + start:,} " if name == "UTF-8" else ""
        place = f"{shown(self._where)}, line {line}: {byte}is not {name}"
        place += f", {bad:,} such places in {size:,} bytes"
        if likely := self._likely(raw, start):
            decoded = raw[raw.rfind(b"\n", 0, start) + 1 :] if likely[:6] != "utf-16" else raw
            begins = decoded[:200].decode(likely, "ignore").removeprefix("\ufeff").strip()[:20]
            remedy = f"leave out --encoding for it, or convert it to {name}"
            if likely != UTF8:
                remedy = f"give --encoding {likely}, or convert it to UTF-8"
            return f"{place}; in {likely} it is Chinese text, {quoted(begins)}: {remedy}"
        return (
            f"{place}; nor is it Chinese text in {', '.join(TRIED[:-1])}. Give --encoding NAME if you know "
            "its encoding, take the file away if it is no text, or give a higher --invalid-share"
        )

    def _likely(self, raw: bytes, start: int) -> str | None:
        """The encoding in which the text from the line of the first bad place on is Chinese, or None."""
        line = raw.rfind(b"\n", 0, start) + 1
        best, found = _LIKELY, None
        for name in TRIED:
            two_bytes = name.startswith("utf-16")
            if name == self._encoding or (two_bytes and self._bytes % 2):
                continue
            sample = raw[:_SAMPLE] if two_bytes else raw[line : line + _SAMPLE]
            text = codecs.getincrementaldecoder(name)("replace").decode(sample)
            if text.count("\ufffd") <= 0.001 * len(sample) and (score := _usual(text, name)) > best:
                best, found = score, name
        return found


def _first_bad(raw: bytes) -> int | None:
    try:
        codecs.utf_8_decode(raw, "strict", False)
    except UnicodeDecodeError as error:
        return error.start
    return None


def _usual(text: str, encoding: str) -> float:
    """Share of the characters that are everyday Chinese ones.

    ASCII is left out where it takes one byte, because it then reads alike in every encoding.
    """
    looked_at = text if encoding.startswith("utf-16") else [c for c in text if c > "\x7f"]
    usual = usual_characters()
    return sum(character in usual for character in looked_at) / max(len(looked_at), 1)


@functools.cache
def usual_characters() -> frozenset[str]:
    """Everyday characters: level 1 of GB 2312 and of Big5 (some 7,000 of 21,000 Han), signs, and ASCII."""
    signs = [*map(chr, range(0x20, 0x7F)), *"\t\r\n\u3000\u2014\u2018\u2019\u201c\u201d\u2026\ufeff"]
    signs += [*map(chr, range(0x3001, 0x3020)), *map(chr, range(0xFF01, 0xFF5F))]
    han = _table("gb2312", range(0xB0, 0xD8)) + _table("big5", range(0xA4, 0xC7))
    return frozenset([*signs, *han])


def _table(encoding: str, leads: range) -> str:
    trails = range(0xA1, 0xFF) if encoding == "gb2312" else (*range(0x40, 0x7F), *range(0xA1, 0xFF))
    pairs = (bytes((lead, trail)) for lead in leads for trail in trails)
    return "".join(pair.decode(encoding, "ignore") for pair in pairs)
