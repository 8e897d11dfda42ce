"""Finds texts of evaluation sets in documents, by the n-grams of folded characters that they share.

The rule is that of evaluation/contamination.py, on characters instead of tokens, for a corpus is cleaned
before there is a vocabulary. N is chosen for each set: its 5th percentile of lengths, at least 13 and at most
20 characters, which are about 8 to 13 tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pangu_alpha.config.corpus import ContaminationSettings
from pangu_alpha.corpus.folding import folded_with_places
from pangu_alpha.corpus.quality.hashed_model import read_model
from pangu_alpha.files.shown import quoted
from pangu_alpha.text.ngrams import NgramTable, ngrams_of, rolling_hashes

_FORMAT = 1
_PERCENTILE = 5


@dataclass(frozen=True)
class Hit:
    """A part of a document that an evaluation set has, too.

    Args:
        task: Name of the set.
        item: Name of an item that has it.
        text: The part, as the document has it.
        start: Its place in the document, in characters.
        stop: Behind it.
    """

    task: str
    item: str
    text: str
    start: int
    stop: int


class ContaminationIndex:
    """n-grams of the items of evaluation sets.

    Args:
        settings: It was built with.
        tables: n-grams by n.
        items: The first item that has each n-gram of a table, int32 [m] by n.
        names: Task and id of each item.
    """

    def __init__(
        self,
        settings: ContaminationSettings,
        tables: dict[int, NgramTable],
        items: dict[int, np.ndarray],
        names: Sequence[tuple[str, str]],
    ) -> None:
        self.settings, self.names = settings, tuple(names)
        self._tables, self._items = tables, items

    @classmethod
    def build(
        cls, items: Iterable[tuple[str, str, str]], settings: ContaminationSettings | None = None
    ) -> ContaminationIndex:
        """Builds an index.

        Args:
            items: Task, id and text of each item; an item may come more than once, with different texts.
            settings: None takes the defaults.

        Raises:
            ValueError: A set has no text of N characters, so nothing of it could ever be found.
        """
        settings = settings or ContaminationSettings()
        by_task: dict[str, list[tuple[str, np.ndarray]]] = {}
        for task, name, text in items:
            by_task.setdefault(task, []).append((name, folded_with_places(text)[0].astype(np.int32)))
        if not by_task:
            raise ValueError("there are no items to look for; name files of evaluation sets, or none at all")
        rows: dict[int, list[tuple[int, np.ndarray]]] = {}
        names: list[tuple[str, str]] = []
        for task, texts in by_task.items():
            n = _length(task, [len(codes) for _, codes in texts], settings)
            for name, codes in texts:
                rows.setdefault(n, []).append((len(names), ngrams_of(codes, n)))
                names.append((task, name))
        tables, first = {}, {}
        for n, each in rows.items():
            tables[n], places = NgramTable.of(np.concatenate([grams for _, grams in each]))
            owners = np.repeat([number for number, _ in each], [len(grams) for _, grams in each])
            first[n] = np.full(len(tables[n].ids), len(names), np.int32)
            np.minimum.at(first[n], places, owners.astype(np.int32))
        return cls(settings, tables, first, names)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the sets."""
        return tuple(dict.fromkeys(task for task, _ in self.names))

    def hits(self, text: str) -> list[Hit]:
        """Parts of a document that items have, in their order; what overlaps is one part."""
        codes, places = folded_with_places(text)
        stream = codes.astype(np.int32)
        found: list[tuple[int, int, int]] = []
        for n, hashes in rolling_hashes(stream, self._tables.keys()):
            at, rows = self._tables[n].find(stream, hashes, np.ones(len(hashes), np.bool_))
            items = self._items[n][rows]
            found += zip(places[at].tolist(), (places[at + n - 1] + 1).tolist(), items.tolist(), strict=True)
        return [self._hit(text, *each) for each in _joined(sorted(found))]

    def _hit(self, text: str, start: int, stop: int, item: int) -> Hit:
        return Hit(*self.names[item], text[start:stop], start, stop)

    def save(self, path: str | Path) -> None:
        """Writes one .npz file without any pickled object; equal indexes give equal bytes."""
        about = {
            "format": _FORMAT,
            "names": self.names,
            "lengths": sorted(self._tables),
            **asdict(self.settings),
        }
        arrays = {}
        for n in sorted(self._tables):
            arrays[f"grams{n}"], arrays[f"items{n}"] = self._tables[n].ids, self._items[n]
        with Path(path).open("wb") as file:
            np.savez_compressed(file, **arrays, about=np.array(json.dumps(about)))

    @classmethod
    def load(cls, path: str | Path) -> ContaminationIndex:
        """Reads an index.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not an index that `save` wrote, or of a later release.
        """
        about, _ = read_model(path, (), "contamination index", _FORMAT)
        lengths, names = about.pop("lengths"), [(task, name) for task, name in about.pop("names")]
        wanted = [f"{kind}{n}" for n in lengths for kind in ("grams", "items")]
        _, arrays = read_model(path, wanted, "contamination index", _FORMAT)
        tables, items = {}, {}
        for n in lengths:
            tables[n], rows = NgramTable.of(arrays[f"grams{n}"])
            items[n] = np.empty(len(rows), np.int32)
            items[n][rows] = arrays[f"items{n}"]
        return cls(ContaminationSettings(**about), tables, items, names)


def _length(task: str, lengths: Sequence[int], settings: ContaminationSettings) -> int:
    percentile = np.percentile(lengths, _PERCENTILE, method="lower")
    n = int(np.clip(percentile, settings.shortest, max(settings.shortest, settings.longest)))
    if max(lengths) < n:
        raise ValueError(
            f"{quoted(task)}: its longest text has {max(lengths)} letters and digits, fewer than the {n} of "
            "an n-gram, so no document could be marked; leave the set out, or give items with their context"
        )
    return n


def _joined(found: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Joins parts that overlap, given by start; the item is that of the first."""
    joined: list[tuple[int, int, int]] = []
    for start, stop, item in found:
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop), joined[-1][2])
        else:
            joined.append((start, stop, item))
    return joined


def without_hits(text: str, hits: Sequence[Hit], settings: ContaminationSettings) -> str:
    """Cuts hits and a margin around them out of a text, as GPT-3 did, and drops short pieces that are left.

    Returns:
        The pieces, joined by an empty line; "" if nothing is left.
    """
    pieces, start = [], 0
    for hit in hits:
        pieces.append(text[start : max(hit.start - settings.margin, start)])
        start = max(start, hit.stop + settings.margin)
    pieces.append(text[start:])
    if not hits:
        return text
    kept = [piece.strip() for piece in pieces if len(piece.strip()) >= max(settings.least_left, 1)]
    return "\n\n".join(kept)
