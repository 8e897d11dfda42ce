"""An item of an evaluation set, and the list of everything that is wrong with a set's files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from pangu_alpha.files.shown import shown

_MOST_SHOWN = 30  # most problems in one message


def rank(*parts: object) -> int:
    """A whole number that looks random and is a function of the parts alone."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


@dataclass(frozen=True)
class Item:
    """One question of an evaluation set.

    Args:
        id: The set's own number or name, as text; unique within the set.
        where: File and line, or file and question, for error messages.
        fields: Texts for the template, by name.
        group: Passage that several items share, or its name; intervals are drawn over groups. Empty if the
            item stands alone.
        choices: Fields of each candidate beside those of the item. A candidate of a labelled set has the
            single field "label". Empty if the answer is to be generated.
        gold: Index of the right candidate.
        references: Right answers of a question whose answer is generated.
    """

    id: str
    where: str
    fields: Mapping[str, str]
    group: str = ""
    choices: tuple[Mapping[str, str], ...] = ()
    gold: int | None = None
    references: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """The right answer in words: the gold candidate's own text, or the first reference."""
        if self.gold is None:
            return self.references[0] if self.references else ""
        return next(iter(self.choices[self.gold].values()))


class TaskFilesError(ValueError):
    """Files of evaluation sets are missing or not of their published form; lists every problem."""


@dataclass
class Problems:
    """Collects what is wrong with several files, so that a user sees all of it at once."""

    found: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, where: object, why: str) -> None:
        """Notes a row that is faulty in the published file itself, and is no item."""
        self.left_out.append(f"{shown(where)}: left out: {why}")

    def add(self, where: object, rule: str) -> None:
        """Notes one problem.

        Args:
            where: File, and the line or question in it.
            rule: What is wrong, and what is expected.
        """
        self.found.append(f"{shown(where)}: {rule}")

    def raise_any(self) -> None:
        """Refuses the files if there is a problem.

        Raises:
            TaskFilesError: Lists the problems.
        """
        found = list(dict.fromkeys(self.found))  # a file that is read twice has the same problems twice
        if not found:
            return
        count = len(found)
        heading = (
            "1 problem in the evaluation files" if count == 1 else f"{count} problems in the evaluation files"
        )
        more = [f"and {count - _MOST_SHOWN:,} more"] if count > _MOST_SHOWN else []
        raise TaskFilesError("\n  - ".join([f"{heading}:", *found[:_MOST_SHOWN], *more]))
