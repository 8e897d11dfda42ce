"""What a corpus is made from, and how: sources, profile, partitions, near duplicates, budgets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pangu_alpha.config.option import REQUIRED, option
from pangu_alpha.config.schema import PathText, build, read_yaml, validate

SourceKind = Literal["encyclopedia", "books", "news", "public", "common_crawl"]
# In the order of trust: of two copies that of the earlier kind is kept.
SOURCE_KINDS: tuple[str, ...] = ("encyclopedia", "books", "news", "public", "common_crawl")
RESERVED = ("stages", "report")  # folders of the output
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Reading:
    """How files become pages. All limits are counts, none is a time: a slow machine must lose nothing.

    Raises:
        ConfigError: Lists all fields that have the wrong type or lie outside their bounds.
    """

    extractor: Literal["resiliparse", "trafilatura"] = option(
        "resiliparse", "what takes the main text out of HTML; trafilatura takes about ten times as long"
    )
    largest_document: int = option(
        64 << 20, "a larger page or record is dropped, before and after unpacking", unit="bytes", at_least=1
    )
    deepest_html: int = option(
        512, "a page whose elements are nested deeper is dropped; browsers stop there, too", at_least=1
    )
    most_tags: int = option(500_000, "a page with more tags is dropped", at_least=1)
    split: Literal["file", "blank_line", "line"] = option("file", "what is a document in a file of text")
    field: str = option("text", "field or column of the text in JSON and parquet; `a.b` is b in a")
    url_field: str = option("url", "field or column of the address; may be absent")
    title_field: str = option("title", "field or column of the title; may be absent")
    charset: str = option("auto", "encoding of files of text and JSON; `auto` tries each document's")

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class CorpusSource:
    """One source of raw documents.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    inputs: tuple[PathText, ...] = option(
        REQUIRED, "files, folders and patterns (`*`, `**`) of WARC, WET, HTML, text, JSONL and parquet files"
    )
    kind: SourceKind | None = option(
        None,
        "the source of the paper's table 3 that it is like; null takes the source's own name if it is one of "
        "them, and else applies every rule and keeps the copies of other sources first",
    )
    tokens: int | None = option(
        None, "most tokens to keep, drawn by a hash of the ids; null keeps all", at_least=1
    )
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if not self.inputs or not all(self.inputs):
            yield "inputs: empty; name at least one file, folder or pattern"


@dataclass(frozen=True)
class SignatureSettings:
    """How near duplicates are looked for. The defaults find a pair of Jaccard .8 with probability .90.

    Raises:
        ConfigError: Lists all fields that have the wrong type or lie outside their bounds.
    """

    shingle_characters: int = option(5, "length of a shingle", at_least=1, at_most=64, unit="characters")
    bands: int = option(
        20, "groups of hashes; a pair that agrees in one of them is compared", at_least=1, at_most=256
    )
    rows: int = option(10, "hashes in a band", at_least=1, at_most=64)
    seed: int = option(1, "seed of the hash functions", at_least=0, below=2**31)
    threshold: float = option(
        0.74,
        "a copy is removed if its signature and that of the copy kept agree in this share",
        at_least=0,
        at_most=1,
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def permutations(self) -> int:
        """Number of hashes in a signature, K."""
        return self.bands * self.rows


@dataclass(frozen=True)
class CorpusConfig:
    """A corpus that is to be built.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    sources: dict[str, CorpusSource]
    output: PathText = option(
        REQUIRED, "folder of the corpus, local or of an object store; each source becomes a folder in it"
    )
    profile: PathText = option(
        "pangu-alpha", "`pangu-alpha`, `strict`, `none`, or the path of a profile of your own"
    )
    item_bytes: int = option(
        32 << 20,
        "bytes of input that one worker takes at a time; larger files that can be cut are cut, small ones go "
        "together",
        unit="bytes",
        at_least=1024,
        at_most=256 << 20,
    )
    partitions: int = option(
        64,
        "parts that the rows of an exchange are cut into; more need less memory, about 3 for each core",
        at_least=1,
        at_most=100_000,
    )
    seed: int = option(1, "seed of all samples", at_least=0, below=2**31)
    vocabulary: PathText | None = option(
        None, "the vocabulary whose tokens budgets are counted in; null counts characters"
    )
    near_duplicates: SignatureSettings = field(default_factory=SignatureSettings)

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if not self.sources:
            yield "sources: empty; name at least one source with its inputs"
        for name in self.sources:
            if name in RESERVED:
                yield f"sources: {name!r} is the name of a folder of the output; give the source another name"
            elif not _NAME.fullmatch(name):
                yield (
                    f"sources: {name!r} becomes a folder's name; take up to 64 letters, digits, _, - and ."
                )
        if not self.output:
            yield "output: empty; give the path of a folder"

    def kind_of(self, source: str) -> str:
        """The kind of a source, or its own name if it is of none."""
        return self.sources[source].kind or source

    def rank_of(self, source: str) -> int:
        """The place of a source in the order in which copies are kept; smaller is first."""
        kind = self.kind_of(source)
        return SOURCE_KINDS.index(kind) if kind in SOURCE_KINDS else len(SOURCE_KINDS)


def load_corpus_config(path: str, changes: dict[str, Any] | None = None) -> CorpusConfig:
    """Reads the YAML of a corpus.

    Args:
        changes: Values that replace those of the file, by key.

    Raises:
        ConfigError: The file cannot be read, or breaks a rule.
    """
    return build(CorpusConfig, {**read_yaml(path), **(changes or {})})
