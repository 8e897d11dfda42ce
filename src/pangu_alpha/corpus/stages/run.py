"""A run as its stages see it: the configuration, the work items, and what earlier stages have left."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pangu_alpha.config.corpus import CorpusConfig
from pangu_alpha.corpus.engine import Work, file_path, read_record
from pangu_alpha.corpus.engine.store import join
from pangu_alpha.corpus.rules import Profile
from pangu_alpha.corpus.stages.inputs import Item


@dataclass(frozen=True)
class Made:
    """A file of an earlier item, and its SHA-256."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Exchanged:
    """A step of a stage that moves rows: the items that they come from, and the parts that they go to."""

    items: Sequence[Work]
    parts: Sequence[Work]


_BYTES_A_PART, _MOST_PARTS = 32 << 20, 4096
Step = Sequence[Work] | Exchanged


@dataclass
class Run:
    """What stages are built from.

    Args:
        items: Work items in order.
        owners: File with the item that owns each input file, and the rank of its source; see `inputs`.
        folders: Of the stages so far, by name.
    """

    config: CorpusConfig
    profile: Profile
    items: Sequence[Item]
    owners: Made
    folders: dict[str, str] = field(default_factory=dict)
    _records: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)

    @functools.cached_property
    def partitions(self) -> int:
        """Number of parts of an exchange."""
        if self.config.partitions is not None:
            return self.config.partitions
        files = {piece.file: piece.input.bytes for item in self.items for piece in item.pieces}
        size = sum(files.values())
        wanted = -(-size // _BYTES_A_PART)
        return min(1 << max(wanted - 1, 0).bit_length(), _MOST_PARTS)

    def records(self, stage: str, count: int | None = None) -> list[Mapping[str, Any]]:
        """The records of a finished stage, or of a step of one ("exact/found").

        Args:
            count: Number of its items; None if it has one for each work item.
        """
        if stage not in self._records:
            name, _, step = stage.partition("/")
            folder = join(self.folders[name], step) if step else self.folders[name]
            self._records[stage] = list(_all_records(folder, len(self.items) if count is None else count))
        return self._records[stage]

    def made(self, stage: str, number: int, name: str, count: int | None = None) -> Made:
        """A file of an item of a finished stage or step."""
        record = self.records(stage, count)[number]
        step, _, inner = stage.partition("/")
        folder = join(self.folders[step], inner) if inner else self.folders[step]
        return Made(file_path(folder, dict(record), name), record["files"][name]["sha256"])


def _all_records(folder: str, count: int) -> Iterator[Mapping[str, Any]]:
    for number in range(count):
        record = read_record(folder, number)
        assert record is not None, (folder, number)
        yield record


def digest_of(*values: Any) -> str:
    """A digest of files that an item reads, and of words."""
    words = [each.sha256 if isinstance(each, Made) else str(each) for each in flat(values)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def flat(values: Iterable[Any]) -> Iterator[Any]:
    """The values of nested lists and tuples."""
    for each in values:
        if isinstance(each, list | tuple):
            yield from flat(each)
        else:
            yield each
