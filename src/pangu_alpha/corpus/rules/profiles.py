"""Profiles: which rules apply, with which bounds. Shipped ones lie as YAML beside this file."""

from __future__ import annotations

import dataclasses
import importlib.resources
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from pangu_alpha.config.option import option
from pangu_alpha.config.schema import (
    ConfigError,
    PathText,
    build,
    merge,
    nearest,
    parse_yaml,
    read_yaml,
    to_mapping,
    validate,
)
from pangu_alpha.corpus.rules.context import Context
from pangu_alpha.corpus.rules.normalise import Normalising
from pangu_alpha.corpus.rules.table import RULES, SOURCES
from pangu_alpha.corpus.rules.words import load_words

PROFILES = ("pangu-alpha", "strict", "none")


@dataclass(frozen=True)
class Words:
    """Lists of words, as files of one word a line (see words.load_words).

    Raises:
        ConfigError: A field has the wrong type.
    """

    sensitive: PathText = option("", "your list of sensitive words; none is shipped", metavar="FILE")
    advertisement: PathText = option(
        "advertisement", "a list of phrases of advertisements; `advertisement` is the shipped one"
    )

    def __post_init__(self) -> None:
        validate(self)


# One field for each rule, so that the table of rules stays the only list of them.
if TYPE_CHECKING:
    Bounds: TypeAlias = Any
else:
    Bounds = dataclasses.make_dataclass(
        "Bounds",
        [
            (rule.name, float | None, option(None, f"{rule.direction.replace('_', ' ')}: {rule.help}"))
            for rule in RULES
        ],
        frozen=True,
        namespace={
            "__module__": __name__,
            "__post_init__": validate,
            "__doc__": "The bound of each rule; null leaves a rule out.",
        },
    )


@dataclass(frozen=True)
class Profile:
    """A choice of rules and bounds.

    Raises:
        ConfigError: Lists all fields that have the wrong type or value.
    """

    summary: str = option("", "one sentence about the profile")
    by_source: bool = option(
        False,
        "apply to a source of the paper only what the paper did to it; a source of another name gets all",
    )
    normalise: Normalising = field(default_factory=Normalising)
    words: Words = field(default_factory=Words)
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        validate(self)

    def bounds_of(self, source: str) -> np.ndarray:
        """The bounds for documents of a source, float32 [rules]; NaN where a rule does not apply."""
        known = self.by_source and source in SOURCES
        bounds = [
            getattr(self.bounds, rule.name) if not known or source in rule.applies else None for rule in RULES
        ]
        return np.array([np.nan if bound is None else bound for bound in bounds], np.float32)

    def normalising_of(self, source: str) -> Normalising:
        """What is changed in documents of a source: the paper changed only those of Common Crawl."""
        if not self.by_source or source == "common_crawl" or source not in SOURCES:
            return self.normalise
        return dataclasses.replace(
            self.normalise, special=False, navigation=False, paragraphs=False, simplify=False
        )

    def context(self) -> Context:
        """Loads the word lists.

        Raises:
            ValueError: A list holds no word or is no UTF-8.
            OSError: A list cannot be read.
        """
        return Context(
            load_words(self.words.sensitive),
            load_words(self.words.advertisement),
            vars(self.normalise.personal_data),
        )


def profile(name_or_path: str) -> Profile:
    """Returns a shipped profile, or reads one from a YAML file.

    A file may have the key `base`, the name of a shipped profile whose values it changes.

    Raises:
        ConfigError: There is no such profile, or it breaks a rule; an unknown key comes with the nearest one.
    """
    if name_or_path in PROFILES:
        return build(Profile, _shipped(name_or_path))
    if not Path(name_or_path).is_file():
        raise ConfigError(
            [
                f"profile: {name_or_path!r} is neither a file nor a shipped profile; "
                f"{nearest(name_or_path, PROFILES)}"
            ]
        )
    values = read_yaml(name_or_path)
    base = values.pop("base", None)
    if base is not None:
        if base not in PROFILES:
            raise ConfigError([f"base: no shipped profile is called {base!r}; {nearest(base, PROFILES)}"])
        values = merge(to_mapping(build(Profile, _shipped(base))), values)
    return build(Profile, values)


def _shipped(name: str) -> dict[str, Any]:
    file = importlib.resources.files(__package__) / "shipped" / f"{name.replace('-', '_')}.yaml"
    values: dict[str, Any] = parse_yaml(file.read_text("utf-8"), file.name)
    return values
