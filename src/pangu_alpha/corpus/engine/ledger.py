"""The ledger of an item or of a stage: what came in, what was kept, and what was dropped for which reason.

Every count is exact. `faults` checks the identities, on writing and again when the items are added up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc


class Count(NamedTuple):
    """Documents, and the characters (code points) and UTF-8 bytes of their texts."""

    documents: int = 0
    characters: int = 0
    bytes: int = 0

    def __add__(self, other: tuple[int, ...]) -> Count:  # type: ignore[override]  # not a concatenation
        return Count(*(one + two for one, two in zip(self, other, strict=True)))

    def __sub__(self, other: Count) -> Count:
        return Count(*(one - two for one, two in zip(self, other, strict=True)))


def count_texts(texts: pa.Array | pa.ChunkedArray) -> Count:
    """Counts the texts of a column."""
    characters = pc.sum(pc.utf8_length(texts)).as_py() or 0
    return Count(len(texts), characters, pc.sum(pc.binary_length(texts)).as_py() or 0)


@dataclass
class Ledger:
    """The counts of one source in one stage.

    Args:
        read: What came in, counted as it was read.
        kept: What of it was kept, as it came in.
        out: What of it was kept, as it went out.
        dropped: What was dropped, by reason.
        removed: Characters taken out of kept texts, by kind.
        added: Characters that a conversion added to kept texts.
        changed: Kept documents that were changed, by kind.
    """

    read: Count = Count()
    kept: Count = Count()
    out: Count = Count()
    dropped: dict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    removed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    added: int = 0
    changed: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def drop(self, reason: str, count: Count) -> None:
        """Counts documents that are dropped for a reason."""
        if count.documents:
            self.dropped[reason] += count

    def keep(self, count: Count, out: Count | None = None) -> None:
        """Counts documents that are kept, with their texts as they came and as they go."""
        self.kept += count
        self.out += count if out is None else out

    def add(self, other: Ledger) -> None:
        """Adds the counts of another ledger."""
        self.read += other.read
        self.keep(other.kept, other.out)
        for reason, count in other.dropped.items():
            self.dropped[reason] += count
        for kind, number in other.removed.items():
            self.removed[kind] += number
        for kind, number in other.changed.items():
            self.changed[kind] += number
        self.added += other.added

    def faults(self) -> Iterator[str]:
        """Yields a sentence for every identity that does not hold."""
        accounted = sum(self.dropped.values(), self.kept)
        if accounted != self.read:
            yield f"in {self.read} is not kept {self.kept} and dropped {accounted - self.kept}"
        characters = self.out.characters + sum(self.removed.values()) - self.added
        if characters != self.kept.characters:
            yield f"{self.kept.characters} characters kept, but {characters} out, removed and not added"
        if self.kept.documents != self.out.documents:
            yield f"{self.kept.documents} documents kept, but {self.out.documents} out"
        negative = [*self.read, *self.kept, *self.out, self.added, *self.removed.values()]
        if min(negative + [number for count in self.dropped.values() for number in count]) < 0:
            yield "a count is negative"

    def plain(self) -> dict[str, Any]:
        """The ledger as it stands in JSON, with sorted keys."""
        return {
            "in": self.read._asdict(),
            "kept": self.kept._asdict(),
            "out": self.out._asdict(),
            "dropped": {reason: self.dropped[reason]._asdict() for reason in sorted(self.dropped)},
            "removed": {kind: self.removed[kind] for kind in sorted(self.removed)},
            "added": self.added,
            "changed": {kind: self.changed[kind] for kind in sorted(self.changed)},
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Ledger:
        """The inverse of `plain`."""
        ledger = cls(Count(**values["in"]), Count(**values["kept"]), Count(**values["out"]))
        ledger.dropped.update({reason: Count(**count) for reason, count in values["dropped"].items()})
        ledger.removed.update(values["removed"])
        ledger.changed.update(values["changed"])
        ledger.added = values["added"]
        return ledger


def add_up(ledgers: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, Ledger]:
    """Adds up the ledgers of items, each by source and as it stands in JSON."""
    total: dict[str, Ledger] = {}
    for each in ledgers:
        for source, values in each.items():
            total.setdefault(source, Ledger()).add(Ledger.of(values))
    return dict(sorted(total.items()))
