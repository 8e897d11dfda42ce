"""The options for reading files as documents, and the report of what was met while reading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from pangu_alpha.config.option import option
from pangu_alpha.config.schema import validate
from pangu_alpha.text.documents.encoding import UTF8, known_encoding
from pangu_alpha.text.documents.opening import FORMATS

SPLITS = ("file", "blank_line", "line")
LARGEST_DOCUMENT = 64 << 20  # bytes: 22 million Han; the way to tokens holds about six times as much


@dataclass(frozen=True)
class ReadOptions:
    """How files become documents and what to do with bad input.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    split: str = option(
        "file",
        "what is a document in a .txt file: all of it (`file`), a paragraph (`blank_line`), a line (`line`)",
        choices=SPLITS,
    )
    field: str = option(
        "text",
        "JSON field or parquet column of the text; `a.b` is the field b in the field a, or in each part of "
        "the list a, whose parts then stand on lines of their own",
        metavar="NAME",
    )
    invalid_utf8: str = option(
        "replace",
        "what to do about a few bad bytes: `replace` them by U+FFFD, `skip` the document, or `error` to stop",
        choices=("replace", "skip", "error"),
    )
    broken: str = option(
        "error",
        "what to do about records that are not JSON or lack the field, damaged archives, and documents that "
        "are too large: `error` stops, `skip` leaves them out",
        choices=("error", "skip"),
    )
    encoding: str = option(UTF8, "encoding of the files, such as gb18030, big5 or utf-16", metavar="NAME")
    format: str = option(
        "auto", "what the files are; `auto` goes by their names and first lines", choices=("auto", *FORMATS)
    )
    invalid_share: float = option(
        0.001,
        "a file with a larger share of bad bytes, in any MiB of it, is in another encoding and is refused",
        at_least=0,
        at_most=1,
        metavar="SHARE",
    )
    largest_document: int = option(
        LARGEST_DOCUMENT, "a larger document or record is refused", unit="bytes", at_least=1, metavar="SIZE"
    )

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if not self.field:
            yield "field: empty; name the field of the text"
        try:
            known_encoding(self.encoding)
        except ValueError as error:
            yield f"encoding: {error}"

    def changed(self) -> dict[str, object]:
        """The options that decide what is read, by name.

        The last four appear only where they differ from the default, so that records written before these
        options existed still have equal settings.
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
    """What was read, and every problem met; reports add up with `+`.

    Args:
        documents, characters: Count what was yielded.
        invalid_utf8: Documents with bad bytes, which were replaced or skipped as the options say.
        skipped_documents: Documents left out because of bad bytes.
        byte_order_marks, nul_characters, lone_surrogates: Characters removed; surrogates became U+FFFD.
        empty_documents: Blank documents, which are not yielded.
        broken_records: Records that are not JSON objects, or whose field does not hold text.
        missing_fields: Records without the field, or with null in it.
        damaged_archives: Packed files that end early or fail their checksum.
        lost_bytes: Bytes of documents that a damaged archive cut in two, and of documents that are too large.
        oversized_documents: Documents left out because they are larger than allowed.
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
        """The counts that are not zero, without documents and characters."""
        return {f.name: count for f in fields(self)[2:] if (count := getattr(self, f.name))}
