"""Finds the encoding of a document: byte order mark, header, meta tag, trial; and wrong ones."""

from __future__ import annotations

import codecs
import functools
import re
from dataclasses import dataclass

import numpy as np

from pangu_alpha.text.documents.encoding import usual_characters

# Names by which pages call encodings whose wider successors are what their authors used.
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "hz": "gb18030", "euc_cn": "gb18030", "cp936": "gb18030",
          "big5": "big5hkscs", "cp950": "big5hkscs", "ascii": "cp1252", "iso8859-1": "cp1252",
          "shift_jis": "cp932", "euc_kr": "cp949"}  # fmt: skip
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_META = re.compile(rb"""(?i)<meta[^>]{0,300}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})"""
                   rb"""|<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9_.:-]{2,40})""")  # fmt: skip
_HEADER = re.compile(r"""(?i)charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""")
_LOOKED_AT = 4096  # bytes in which a meta tag is looked for
_JUDGED = 1 << 16  # characters
_MOST_BAD = 0.001  # undecodable places among the bytes
_FEW_BAD = 3
_LIKELY = 0.75  # share of everyday characters from which a trial is believed
_DOUBTED = 0.6  # below this share a stated encoding is doubted
_NONSENSE = 0.5  # above this share of rare Han among Han a text is in a wrong encoding
_ENOUGH = 20  # Han that are needed to judge that


@dataclass(frozen=True)
class Decoded:
    """A document's text, the encoding it was read in, and what named it: mark, header, meta or trial."""

    text: str
    charset: str
    by: str


def stated_charset(content_type: str) -> str:
    """The encoding that a Content-Type names, or ""."""
    found = _HEADER.search(content_type)
    return found[1] if found else ""


def meta_charset(content: bytes) -> str:
    """The encoding that a page names in its beginning, or ""."""
    found = _META.search(content[:_LOOKED_AT])
    return (found[1] or found[2]).decode("ascii") if found else ""


def decode(content: bytes, header: str = "", meta: str = "") -> Decoded | None:
    """Decodes a document, or returns None if no encoding makes sense of it.

    A stated encoding is believed unless it leaves bytes undecoded, or makes mostly rare characters where
    another makes everyday ones.

    Args:
        header: The encoding that the response's header names, or "".
        meta: The encoding that the page names, or "".
    """
    for mark, name in _MARKS:
        if content.startswith(mark):
            text = content.decode(name, "replace")
            return Decoded(text, name.removesuffix("-sig"), "mark") if _few_bad(text, content) else None
    if content.isascii():
        return _ascii(content, header or meta)
    stated = [(name, by) for name, by in ((_known(header), "header"), (_known(meta), "meta")) if name]
    if b"\0" not in content:  # the meta tag could not have been read if the page were in UTF-16
        stated = [(name, by) for name, by in stated if not name.startswith(("utf-16", "utf-32"))]
    best: tuple[float, Decoded] | None = None
    for name, by in [*stated, *((each, "trial") for each in ("utf-8", "gb18030", "big5hkscs"))]:
        text = content.decode(name, "replace")
        if not _few_bad(text, content):
            continue
        score = usual_share(text)
        believed = _DOUBTED if by != "trial" else _LIKELY
        if name == "utf-8" or (score >= believed and name != "cp1252"):
            return _sensible(Decoded(text, name, by))
        if best is None or score > best[0]:
            best = score, Decoded(text, name, by)
    return _other(content, best[1] if best else None)


def _ascii(content: bytes, stated: str) -> Decoded | None:
    name = _known(stated)
    if name and b"~{" in content and stated.lower().startswith("hz"):
        return Decoded(content.decode("hz", "replace"), "hz", "header")
    if b"\x1b$" in content:  # the shifts of ISO-2022-JP and -KR
        return _other(content, None)
    return Decoded(content.decode("ascii"), "ascii", "trial")


def _other(content: bytes, best: Decoded | None) -> Decoded | None:
    """Asks the detector of other languages; a stated encoding goes before what it finds."""
    if best is not None and best.by != "trial" and best.charset != "cp1252":
        return _sensible(best)
    from resiliparse.parse.encoding import detect_encoding

    name = _known(detect_encoding(content, html5_compatible=False) or "")
    if name and name not in ("utf-8", "gb18030", "big5hkscs"):
        text = content.decode(name, "replace")
        if _few_bad(text, content):
            return _sensible(Decoded(text, name, "trial"))
    return _sensible(best) if best is not None and best.charset == "cp1252" else None


def _sensible(decoded: Decoded) -> Decoded | None:
    return None if rare_share(decoded.text) > _NONSENSE else decoded


@functools.lru_cache(256)
def _known(name: str) -> str:
    """Python's name of an encoding, widened; "" for one it does not know or that is none of texts."""
    try:
        codec = codecs.lookup(name.strip().lower()).name if name else ""
        b"a".decode(codec or "ascii")
    except (LookupError, ValueError):
        return ""
    if codec in ("idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7", "undefined"):
        return ""
    return _WIDER.get(codec, codec)


def _few_bad(text: str, content: bytes) -> bool:
    bad = text.count("\ufffd")
    if not bad:
        return True
    bad -= content.count(b"\xef\xbf\xbd")  # written so by the page itself
    return bad <= _FEW_BAD + _MOST_BAD * len(content) and bad * 10 <= len(text)


@functools.cache
def _everyday() -> np.ndarray:
    table = np.zeros(0x10000, bool)
    table[[ord(each) for each in usual_characters()]] = True
    return table


def _judged(text: str) -> np.ndarray:
    points = np.frombuffer(text[:_JUDGED].encode("utf-32-le", "surrogatepass"), np.uint32)
    return np.minimum(points, 0xFFFF)


def usual_share(text: str) -> float:
    """Share of everyday Chinese characters and signs among the characters that are not ASCII."""
    points = _judged(text)
    points = points[points > 0x7F]
    return float(_everyday()[points].sum()) / max(len(points), 1)


def rare_share(text: str) -> float:
    """Share of rare Han among the Han of a text; 0 if there are too few Han to judge."""
    points = _judged(text)
    han = points[((points >= 0x3400) & (points <= 0x9FFF)) | ((points >= 0xF900) & (points <= 0xFAFF))]
    return 1 - float(_everyday()[han].sum()) / len(han) if len(han) >= _ENOUGH else 0.0
