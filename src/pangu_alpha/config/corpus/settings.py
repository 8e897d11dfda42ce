"""What a corpus is made from, and how: sources, profile, partitions, near duplicates, budgets."""

from __future__ import annotations

import codecs
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

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        try:
            codecs.lookup(self.charset if self.charset != "auto" else "utf-8")
        except LookupError:
            yield f"charset: {self.charset!r} is no encoding; such as gb18030, big5, utf-8, or auto"


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

    shingle_characters: int = option(
        5, "length of the pieces of text that are compared", at_least=1, at_most=64, unit="characters"
    )
    bands: int = option(
        20,
        "groups of hashes; two documents that agree in one of them come into one component",
        at_least=1,
        at_most=256,
    )
    rows: int = option(10, "hashes in a band, all of which must agree", at_least=1, at_most=64)
    seed: int = option(1, "seed of the hash functions", at_least=0, below=2**31)
    check_hashes: int = option(
        1000,
        "hashes by which the documents of a component are compared; the share that agrees estimates "
        "Jaccard's index J with a standard deviation of sqrt(J (1 - J) / check_hashes)",
        at_least=1,
        at_most=1 << 14,
    )
    threshold: float = option(
        0.795,
        "a copy is removed if its hashes and those of the copy kept agree in this share",
        at_least=0,
        at_most=1,
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def permutations(self) -> int:
        """Number of hashes in all bands, K."""
        return self.bands * self.rows


TRAIN = "train"  # instead of a model's path


@dataclass(frozen=True)
class QualityConfig:
    """Which models score documents, and what they drop. Sources of the paper that it did not filter stay.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    spam: PathText | None = option(
        None,
        "model of spam: `train` (from what the extractor keeps of pages against what it cuts away), a model "
        "that such a run has left, or a fastText .bin; null scores none",
    )
    spam_above: float = option(0.5, "a document with a higher score is dropped", at_least=0, at_most=1)
    spam_label: str = option("__label__spam", "label of a fastText model that means spam")
    quality: PathText | None = option(
        None,
        "model of quality: `train` (encyclopedia, books and news against Common Crawl), a model that such a "
        "run has left, or a fastText .bin; null scores none. Documents are kept by GPT-3's rule",
    )
    quality_label: str = option("__label__good", "label of a fastText model that means good text")
    quality_alpha: int = option(9, "shape of Pareto's distribution in GPT-3's rule", at_least=1, at_most=100)
    perplexity_above: float | None = option(
        None,
        "a document with a higher perplexity per character is dropped, by trigrams of encyclopedia, books "
        "and news; null trains none",
        above=1,
    )
    samples: int = option(20_000, "most documents of either class that a model is trained on", at_least=2)
    held_out: float = option(
        0.2, "share of the sites that the model of spam is measured on instead", at_least=0, below=1
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class ContaminationSettings:
    """How documents are searched for texts of evaluation sets.

    Raises:
        ConfigError: Lists all fields that have the wrong type or lie outside their bounds.
    """

    shortest: int = option(13, "smallest N of the n-grams", at_least=1, unit="characters")
    longest: int = option(20, "largest N of the n-grams", at_least=1, unit="characters")
    margin: int = option(200, "cut out before and behind what is found", at_least=0, unit="characters")
    least_left: int = option(
        200, "a piece of the document that is left is dropped if it is shorter", at_least=0, unit="characters"
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class EvaluationSet:
    """Files of an evaluation set, whose texts the corpus shall not hold.

    Raises:
        ConfigError: A field has the wrong type.
    """

    inputs: tuple[PathText, ...] = option(
        REQUIRED, "files of JSON lines, whose texts are all looked for, or of one text a line"
    )

    def __post_init__(self) -> None:
        validate(self)


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
    partitions: int | None = option(
        None,
        "parts that the rows of an exchange are cut into: more of them need less memory; null takes one for "
        "each 32 MiB of input, rounded up to a power of two, and at most 4096",
        at_least=1,
        at_most=100_000,
    )
    seed: int = option(1, "seed of all samples and draws", at_least=0, below=2**31)
    vocabulary: PathText | None = option(
        None, "the vocabulary whose tokens budgets are counted in; null counts characters"
    )
    near_duplicates: SignatureSettings = field(default_factory=SignatureSettings)
    quality: QualityConfig = field(default_factory=QualityConfig)
    evaluation_sets: dict[str, EvaluationSet] = field(default_factory=dict)
    contamination: ContaminationSettings = field(default_factory=ContaminationSettings)

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

    def filtered_by_models(self, source: str) -> bool:
        """Whether models may drop documents of a source: the paper did so with Common Crawl and e-books."""
        return self.kind_of(source) not in ("encyclopedia", "news", "public")

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
