"""Training and validation batches: MindSpore's dataset reads records in our order, as named fields.

Batch n is a pure function of (seed, n, manifests, position). MindSpore reads, batches and prefetches by
index; everything computed here is whole-array numpy. Memory is O(records) for MindSpore's own index and
O(leg) here. A Collation decides which columns are read and which fields are made of them; data.windows has
the one for tokens. Legend: B rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pangu_alpha.data.order import Mixture, Permutation
from pangu_alpha.data.position import Position, SourcePlace

# MindSpore 2.9 takes the indices of a dataset as one list, so the endless stream is read in legs. Each opens
# the files anew (0.02 s for 20,000 windows, 0.17 s for a million), so legs grow with the corpus.
_LEG = 1 << 16
_LEGS_PER_EPOCH = 64
_READERS = min(2, os.cpu_count() or 1)  # MindSpore 2.9 refuses more workers than cores


Columns = Mapping[str, np.ndarray]  # the stored columns of some records, by name


@dataclass(frozen=True, eq=False)
class Batch:
    """The rows that one evaluation of a loss takes.

    Args:
        fields: Arrays by name, each [B, ...], in the order of the loss's inputs.
        weights: float32 [B], how much each row counts in the loss; for a window, its number of tokens that
            are not padding. Whole numbers whose sum stays below 2^24 are added without rounding.
        source_ids: int32 [B], index of the row's source among the run's sources; 0 in validation.
    """

    fields: Mapping[str, np.ndarray]
    weights: np.ndarray
    source_ids: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        return self.fields[name]

    def __len__(self) -> int:
        """Number of rows, B."""
        return len(self.weights)

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """Concatenates the rows of several batches that have the same fields."""
        fields = {name: np.concatenate([each[name] for each in batches]) for name in batches[0].fields}
        weights = np.concatenate([each.weights for each in batches])
        return cls(fields, weights, np.concatenate([each.source_ids for each in batches]))


class Collation(Protocol):
    """Makes a batch of stored records; it must be a pure function, so that batch n is one as well."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the records to read."""

    def batch(self, columns: Columns, samples: np.ndarray, source_ids: np.ndarray) -> Batch:
        """Makes a batch.

        Args:
            columns: Arrays [B, ...].
            samples: int64 [B], number of each record in the run; anything random in a row is seeded from it.
            source_ids: int [B].
        """

    def filled(self, columns: Columns | None, rows: int) -> Columns:
        """Extends records (None for no records) to `rows` rows; the added rows count nothing in the loss."""


class StoredRecords(Protocol):
    """A set of records that has been checked, such as data.manifest.Records."""

    @property
    def files(self) -> list[str]:
        """MindRecord files in their order."""

    @property
    def count(self) -> int:
        """Number of records in the files."""

    @property
    def digest(self) -> str:
        """A digest that is equal only if the records and their order are equal."""


@dataclass(frozen=True)
class Source:
    """One set of records in a mixture.

    Args:
        name: Its name in the config and in reports.
        weight: Share of the samples relative to the other sources; positive.
    """

    name: str
    records: StoredRecords
    weight: float = 1.0


class TrainingBatches:
    """The endless stream of training batches, which can be entered at any sample.

    The run's place is the number of samples that all devices together have read. The batch at place n holds
    samples n to n + batch_size * world_size - 1, of which rank r takes the r-th batch_size. A resume
    therefore needs only that number, and may change the batch size or the number of devices. If the mixture
    may have changed, it also needs the old `position`, and must call `resume` first.

    Args:
        sources: Sets of records, all with the columns that the collation reads.
        batch_size: Rows of this device's batch, B.
        seed: Seed of the order.
        shuffle: False reads each source in its written order.
        rank: Index of this device among the devices that read different rows.
        world_size: Number of those devices.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        collation: Collation,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        assert batch_size >= 1 and 0 <= rank < world_size, (batch_size, rank, world_size)
        self.sources = tuple(sources)
        self.samples_per_batch = batch_size * world_size
        self._batch_size = batch_size
        self._rank = rank
        self._collation = collation
        self._seed, self._shuffle = seed, shuffle
        self._bases = np.cumsum([0, *(source.records.count for source in sources)])
        self._total = int(self._bases[-1])
        self._new = [_unread(source) for source in self.sources]
        self._set(Position(0, tuple(self._new)))

    def resume(self, samples: int, position: Position) -> None:
        """Continues from the place of another stream.

        Args:
            samples: Number of samples that the other stream has read.
            position: The other stream's position; its sources may differ in number, weight or name.
        """
        self._set(position.change(samples, self._new))

    def _set(self, position: Position) -> None:
        self.position = position
        self._orders = [
            Permutation(source.windows, self._seed, source.order, self._shuffle)
            for source in position.present
        ]

    @property
    def mixture(self) -> Mixture:
        """The mixture that assigns the samples since it last changed."""
        return self.position.mixture

    def indices(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Source of each sample, and its record counted over the files of all sources; int64 arrays."""
        sources, draws = self.position(samples)
        records = np.empty_like(draws)
        for place, order in enumerate(self._orders):
            mine = sources == place
            records[mine] = self._bases[place] + order(draws[mine])
        return sources, records

    def rows(self, samples: np.ndarray) -> Batch:
        """Reads the given samples, int64 [B], whichever device they belong to."""
        sources, records = self.indices(samples)
        files = [file for source in self.sources for file in source.records.files]
        copies = -(-len(records) // self._total)  # for the reason given in `batches`
        (columns,) = _read(files * copies, self._collation.columns, records, len(records))
        return self._collation.batch(columns, samples, sources)

    def batches(self, position: int = 0) -> Iterator[Batch]:
        """Yields the batches from sample `position` on, without end."""
        files = [file for source in self.sources for file in source.records.files]
        leg = min(max(_LEG, self._total // _LEGS_PER_EPOCH), self._total) // self._batch_size or 1
        while True:
            starts = position + np.arange(leg) * self.samples_per_batch + self._rank * self._batch_size
            samples = starts[:, None] + np.arange(self._batch_size)
            sources, records = self.indices(samples)
            # MindSpore 2.9 refuses more indices than there are records, and a batch may be larger than the
            # corpus: listing the files several times makes enough records.
            copies = -(-self._batch_size // self._total)
            blocks = _read(files * copies, self._collation.columns, records.ravel(), self._batch_size)
            for columns, numbers, source_ids in zip(blocks, samples, sources, strict=True):
                yield self._collation.batch(columns, numbers, source_ids)
            position += leg * self.samples_per_batch


def _unread(source: Source) -> SourcePlace:
    return SourcePlace.new(source.name, source.weight, source.records.count, source.records.digest)


class ValidationBatches:
    """All records of one set once, in written order, in batches of one shape.

    The last batch is filled up with rows that count nothing, so every rank gets the same number of batches.

    Args:
        batch_size: Rows of this device's batch, B.
        rank: Index of this device among the devices that read different rows.
        world_size: Number of those devices.
    """

    def __init__(
        self,
        records: StoredRecords,
        collation: Collation,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._records = records
        self._collation = collation
        self._batch_size = batch_size
        self._rank = rank
        self._samples_per_batch = batch_size * world_size

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self._records.count // self._samples_per_batch)

    def __iter__(self) -> Iterator[Batch]:
        places = np.arange(len(self) * self._samples_per_batch).reshape(len(self), -1, self._batch_size)
        mine, sources = places[:, self._rank], np.zeros(self._batch_size, np.int32)
        wanted, names = mine[mine < self._records.count], self._collation.columns
        blocks = iter(_read(self._records.files, names, wanted, self._batch_size))
        for samples in mine:
            columns = self._collation.filled(next(blocks, None), self._batch_size)
            yield self._collation.batch(columns, samples, sources)


def _read(
    files: list[str], names: Sequence[str], records: np.ndarray, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Reads columns of records by their numbers, in blocks [batch_size, ...]; the last may be shorter."""
    import mindspore.dataset as ds  # here, because the import takes seconds and most callers do not read

    if not len(records):
        return
    sampler = ds.SubsetSampler(records.tolist())
    dataset = ds.MindDataset(files, columns_list=list(names), sampler=sampler, num_parallel_workers=_READERS)
    dataset = dataset.batch(batch_size, num_parallel_workers=1)
    yield from dataset.create_dict_iterator(num_epochs=1, output_numpy=True)
