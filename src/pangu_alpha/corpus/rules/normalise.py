"""Changes the text of a document by the rules that drop none, and accounts for every character it removes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from pangu_alpha.config.option import option
from pangu_alpha.config.schema import validate
from pangu_alpha.corpus.rules import code_points as cp
from pangu_alpha.corpus.rules.navigation import navigation
from pangu_alpha.corpus.rules.personal import masked
from pangu_alpha.corpus.rules.script import simplified
from pangu_alpha.text.characters import INVISIBLE, LINE_END, SPACES

Action = Literal["mask", "drop", "keep"]
# Box drawing, blocks, shapes, miscellaneous symbols, dingbats, variation selectors, private use, pictographs
# and tags. ○ ◯ stay: they write zero. So do arrows, mathematical signs and numbers in circles.
SPECIAL = re.compile(
    "[\u2500-\u25a0\u25a1-\u25ca\u25cc-\u25ce\u25d0-\u25ee\u25f0-\u27bf\u2b00-\u2bff\ufe00-\ufe0f"
    "\ue000-\uf8ff\U0001f000-\U0001faff\U000e0000-\U000e01ef\U000f0000-\U0010ffff]+"
)


@dataclass(frozen=True)
class PersonalData:
    """What happens to each kind of personal data: `mask` puts a mark such as <手机号> in its place.

    Raises:
        ConfigError: Lists all fields that have the wrong value.
    """

    id_number: Action = option("mask", "ID numbers of 18 characters with a right check digit")
    bank_card: Action = option("mask", "card numbers of 16 to 19 digits with a right Luhn digit")
    old_id_number: Action = option("mask", "ID numbers of 15 digits, as they were issued until 1999")
    mobile: Action = option("mask", "mobile telephone numbers")
    landline: Action = option("mask", "telephone numbers with an area code")
    email: Action = option("mask", "e-mail addresses")
    ip_address: Action = option("mask", "public IPv4 addresses")
    qq: Action = option("mask", "QQ numbers after a word that names them")
    wechat: Action = option("mask", "WeChat names after a word that names them")

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class Normalising:
    """What is changed in every document of a source.

    Raises:
        ConfigError: Lists all fields that have the wrong type or lie outside their bounds.
    """

    invisible: bool = option(True, "take out control, zero-width and direction characters")
    special: bool = option(
        True, "take out special symbols: boxes, shapes, pictographs, private characters (C4)"
    )
    spaces: bool = option(True, "make one plain space of a run of spaces, and trim lines")
    blank_lines: bool = option(True, "take out blank lines")
    navigation: bool = option(True, "take out lines of navigation (C8)")
    paragraphs: bool = option(True, "take out a paragraph that came before in the document (C5)")
    paragraph_min_characters: int = option(15, "shorter paragraphs may repeat", at_least=1, unit="characters")
    simplify: bool = option(True, "make simplified of traditional Chinese (C7)")
    personal_data: PersonalData = field(default_factory=PersonalData)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class Normalised:
    """A changed text. `len(text before) == len(text) + sum(removed.values())` holds exactly.

    Args:
        removed: Characters removed by kind. `conversion` and `personal_data` are what the text became
            shorter by, which is negative where it grew.
        converted: Whether the text had traditional characters that were made simplified.
        masked: Pieces of personal data masked, by kind.
    """

    text: str
    removed: dict[str, int]
    converted: bool = False
    masked: dict[str, int] = field(default_factory=dict)


def normalise(text: str, settings: Normalising) -> Normalised:
    """Applies the settings to one text.

    Raises:
        AssertionError: The characters do not add up: a fault of this program.
    """
    given = len(text)
    removed: Counter[str] = Counter()
    counts = cp.class_counts(cp.class_table()[cp.code_points(text)])
    text = _characters(text, settings, counts, removed)
    text, converted = _shrunk(text, *simplified(text), removed) if settings.simplify else (text, False)
    text = _lines(text, settings, removed)
    actions = settings.personal_data
    new, marks = masked(text, vars(actions)) if "mask" in vars(actions).values() else (text, Counter())
    removed["personal_data"] += len(text) - len(new)
    removed = Counter({kind: count for kind, count in removed.items() if count})
    assert given == len(new) + sum(removed.values()), f"{given} != {len(new)} + {dict(removed)}"
    return Normalised(new, dict(removed), converted, dict(marks))


def _shrunk(before: str, after: str, converted: bool, removed: Counter[str]) -> tuple[str, bool]:
    removed["conversion"] += len(before) - len(after)
    return after, converted


def _characters(text: str, settings: Normalising, counts: list[int], removed: Counter[str]) -> str:
    """Takes single characters out; an expression runs only where the counts show that it has work."""
    if settings.invisible and counts[cp.INVISIBLE]:
        text = _without(INVISIBLE, "", text, "invisible", removed)
    if counts[cp.LINE_BREAK]:
        text = _without(LINE_END, "\n", text, "line_ends", removed)
    if settings.special and counts[cp.SPECIAL]:
        text = _without(SPECIAL, "", text, "special", removed)
    if settings.spaces and counts[cp.SPACE]:
        text = _without(SPACES, " ", text, "spaces", removed)
    return text


def _without(pattern: re.Pattern[str], into: str, text: str, kind: str, removed: Counter[str]) -> str:
    new = pattern.sub(into, text)
    removed[kind] += len(text) - len(new)
    return new


def _lines(text: str, settings: Normalising, removed: Counter[str]) -> str:
    """Takes lines out; a removed line counts with one line end, as there are one fewer of those."""
    lines = text.split("\n")
    if settings.spaces:
        lines = [line.strip(" ") for line in lines]
        removed["spaces"] += len(text) + 1 - sum(map(len, lines)) - len(lines)
    last = ""
    if settings.blank_lines:
        kept = [line for line in lines if line]
        if len(kept) < len(lines):
            removed["blank_lines"] += len(lines) - len(kept)
            last, lines = "blank_lines", kept
    if settings.navigation and lines:
        last, lines = _dropped(lines, navigation(lines), "navigation", last, removed)
    if settings.paragraphs and len(lines) > 1:
        repeated = _repeated(lines, settings.paragraph_min_characters)
        last, lines = _dropped(lines, repeated, "paragraphs", last, removed)
    if not lines and last:  # n lines have n - 1 line ends between them
        removed[last] -= 1
    return "\n".join(lines)


def _dropped(
    lines: list[str], out: list[bool], kind: str, last: str, removed: Counter[str]
) -> tuple[str, list[str]]:
    """The lines without those that are out, and the kind that removed a line last."""
    if True not in out:
        return last, lines
    removed[kind] += sum(len(line) + 1 for line, gone in zip(lines, out, strict=True) if gone)
    return kind, [line for line, gone in zip(lines, out, strict=True) if not gone]


def _repeated(lines: list[str], shortest: int) -> list[bool]:
    if len(set(lines)) == len(lines):
        return [False] * len(lines)
    seen: set[str] = set()
    repeated = []
    for line in lines:
        repeated.append(len(line) >= shortest and line in seen)
        seen.add(line)
    return repeated
