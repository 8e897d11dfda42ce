"""How files become documents, as data, and what was met on the way."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pangu_alpha.text.documents.encoding import UTF8, known_encoding
from pangu_alpha.text.documents.opening import FORMATS

SPLITS = ("file", "blank_line", "line")
LARGEST_DOCUMENT = 64 << 20  # bytes: 22 million Han; the way to tokens holds about six times as much


@dataclass(frozen=True)
class ReadOptions:
    """How files become documents and what to do with bad input.

    Args:
        split (str): a .txt file is one document ("file"), or one a paragraph ("blank_line"), or one a "line".
        field (str): name of the text in a JSON record or of a parquet column; dots lead into objects and
            lists, whose parts then stand on lines of their own.
        invalid_utf8 (str): "replace" bad bytes by U+FFFD, "skip" the document, or "error".
        broken (str): "error", or "skip" records that are not JSON or lack the field, documents that are too
            large, and what a damaged archive no longer holds whole.
        encoding (str): of text and JSON files, and of binary parquet columns.
        format (str): "txt", "json" or "parquet"; "auto" goes by the file's name and first line.
        invalid_share (float): a file with a larger share of bad places, in any MiB of it, is refused
            whatever `invalid_utf8` says: it is not in that encoding.
        largest_document (int): in bytes.
    """

    split: str = "file"
    field: str = "text"
    invalid_utf8: str = "replace"
    broken: str = "error"
    encoding: str = UTF8
    format: str = "auto"
    invalid_share: float = 0.001
    largest_document: int = LARGEST_DOCUMENT

    def __post_init__(self) -> None:
        allowed = {
            "split": SPLITS,
            "invalid_utf8": ("replace", "skip", "error"),
            "broken": ("error", "skip"),
            "format": ("auto", *FORMATS),
        }
        wrong = [
            f"{name} = {getattr(self, name)!r}: must be one of {', '.join(values)}"
            for name, values in allowed.items()
            if getattr(self, name) not in values
        ]
        if not 0.0 <= self.invalid_share <= 1.0:
            wrong.append(f"invalid_share = {self.invalid_share}: must lie in [0, 1]")
        if self.largest_document < 1:
            wrong.append(f"largest_document = {self.largest_document}: must be at least 1 byte")
        if not self.field:
            wrong.append("field = '': name the field of the text")
        try:
            known_encoding(self.encoding)
        except ValueError as error:
            wrong.append(f"encoding = {self.encoding!r}: {error}")
        if wrong:
            raise ValueError("; ".join(wrong))

    def changed(self) -> dict[str, object]:
        """The options that decide what is read; the later four only where they are not the default.

        So records that were made before there were these are of the same settings.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        later = {f.name: f.default for f in fields(self)[4:]}
        return {name: value for name, value in values.items() if name not in later or value != later[name]}

    @property
    def path(self) -> tuple[str, ...]:
        """The keys that lead to the text, outermost first."""
        return tuple(self.field.split("."))


@dataclass(frozen=True)
class ReadReport:
    """What was read and every problem met; reports add up with `+`.

    Args:
        documents, characters (int): what was handed out.
        invalid_utf8 (int): documents with bad bytes (replaced or skipped as the options say).
        skipped_documents (int): documents left out for bad bytes.
        byte_order_marks, nul_characters, lone_surrogates (int): taken out; surrogates became U+FFFD.
        empty_documents (int): blank ones, not handed out.
        broken_records (int): records that are not JSON objects or whose field is no text.
        missing_fields (int): records without the field, or with a null in it.
        damaged_archives (int): packed files that end early or fail their check.
        lost_bytes (int): bytes of the document that such a file cut in two, and of those that are too large.
        oversized_documents (int): documents larger than allowed, left out.
    """

    documents: int = 0
    characters: int = 0
    invalid_utf8: int = 0
    skipped_documents: int = 0
    byte_order_marks: int = 0
    nul_characters: int = 0
    lone_surrogates: int = 0
    empty_documents: int = 0
    broken_records: int = 0
    missing_fields: int = 0
    damaged_archives: int = 0
    lost_bytes: int = 0
    oversized_documents: int = 0

    def __add__(self, other: ReadReport) -> ReadReport:
        return ReadReport(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def problems(self) -> dict[str, int]:
        """The counts that are not zero, documents and characters aside."""
        return {f.name: count for f in fields(self)[2:] if (count := getattr(self, f.name))}
