"""Training and validation batches: windows read by MindSpore's dataset in our order, with the model's fields.

Batch n is a pure function of (seed, n, manifests, position). MindSpore reads, batches and prefetches by
index; what is computed here is whole-array numpy. Memory: MindSpore's own index, O(windows); ours O(leg).
Legend: B rows, S sequence length.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pangu_alpha.config.data import DataConfig
from pangu_alpha.data.manifest import Records, Vocabulary, open_records
from pangu_alpha.data.order import Mixture, Permutation
from pangu_alpha.data.position import Position, SourcePlace, plan_table
from pangu_alpha.data.records import COLUMN

# MindSpore takes the indices of a dataset as one list, so the endless stream is read in legs. Each opens the
# files anew (0.02 s for 20,000 windows, 0.17 s for a million), so legs grow with the corpus.
_LEG = 1 << 16
_LEGS_PER_EPOCH = 64
_READERS = min(2, os.cpu_count() or 1)  # MindDataset refuses more workers than there are cores


class Batch(NamedTuple):
    """What the network and the loss take, all numpy.

    Args:
        input_ids: int32 [B, S].
        labels: int32 [B, S], the ids one place later.
        loss_mask: float32 [B, S], 1 where the input id is not <pad>, else 0.
        position_ids: int32 [B, S], see `document_fields`.
        document_ids: int32 [B, S], see `document_fields`.
        source_ids: int32 [B], place of the row's source among the run's sources; 0 in validation.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    loss_mask: np.ndarray
    position_ids: np.ndarray
    document_ids: np.ndarray
    source_ids: np.ndarray


@dataclass(frozen=True)
class Source:
    """One set of records in a mixture.

    Args:
        name: In the config, and in reports.
        records: As `open_records` checked them.
        weight: Share of the samples relative to the other sources; positive.
    """

    name: str
    records: Records
    weight: float = 1.0


def document_fields(ids: np.ndarray, end_of_document_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and documents of input ids; an end-of-document id belongs to the document it ends.

    Args:
        ids: Input ids, int32 [B, S].
        end_of_document_id: Id after which a new document starts.

    Returns:
        position_ids, int32 [B, S]: 0 at each document's first id; and document_ids, int32 [B, S]: number of
        end-of-document ids strictly before. A position may attend to the earlier ones of equal document_id.
    """
    ends = (ids[:, :-1] == end_of_document_id).astype(np.int32)
    length = ids.shape[1]
    document_ids = np.zeros(ids.shape, np.int32)
    np.cumsum(ends, axis=1, out=document_ids[:, 1:])
    starts = np.zeros(ids.shape, np.int32)
    np.maximum.accumulate(ends * np.arange(1, length, dtype=np.int32), axis=1, out=starts[:, 1:])
    return np.arange(length, dtype=np.int32) - starts, document_ids


def make_batch(
    windows: np.ndarray, source_ids: np.ndarray, vocabulary: Vocabulary, document_mask: bool = True
) -> Batch:
    """Derives a batch's fields from its windows.

    Args:
        windows: int32 [B, S + 1].
        source_ids: int [B].
        vocabulary: Whose <pad> and end of document count.
        document_mask: False makes each row one document with positions 0..S-1.
    """
    ids = np.ascontiguousarray(windows[:, :-1])
    if document_mask:
        positions, documents = document_fields(ids, vocabulary.end_of_document_id)
    else:
        documents = np.zeros(ids.shape, np.int32)
        positions = documents + np.arange(ids.shape[1], dtype=np.int32)
    return Batch(
        input_ids=ids,
        labels=np.ascontiguousarray(windows[:, 1:]),
        loss_mask=(ids != vocabulary.pad_id).astype(np.float32),
        position_ids=positions,
        document_ids=documents,
        source_ids=np.asarray(source_ids, np.int32),
    )


class TrainingBatches:
    """The endless stream of training batches, to be entered at any sample.

    The run's place is the number of samples read so far by all devices together; the batch at place n holds
    samples n to n + batch_size * world_size - 1, of which rank r takes the r-th batch_size. So a resume needs
    that number, and the batch size or the number of devices may change at it. Where the mixture may have
    changed, it also needs the `position` and begins with `resume`.

    Args:
        sources: Sets of records, all of one vocabulary and sequence length.
        batch_size: Rows of this device's batch, B.
        seed: Seed of the order.
        shuffle: False reads each source in its written order.
        document_mask: See `make_batch`.
        rank: This device's place among the devices that read different rows.
        world_size: Number of those devices.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        document_mask: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        assert batch_size >= 1 and 0 <= rank < world_size, (batch_size, rank, world_size)
        self.sources = tuple(sources)
        self.samples_per_batch = batch_size * world_size
        self._batch_size = batch_size
        self._rank = rank
        self._document_mask = document_mask
        self._vocabulary = sources[0].records.manifest.vocabulary
        self._seed, self._shuffle = seed, shuffle
        self._bases = np.cumsum([0, *(source.records.manifest.windows for source in sources)])
        self._total = int(self._bases[-1])
        self._new = [_unread(source) for source in self.sources]
        self._set(Position(0, tuple(self._new)))

    def resume(self, samples: int, position: Position) -> None:
        """Goes on from another stream's place.

        Args:
            samples: That have been read.
            position: Of that stream, whose sources may be others, or have other weights or names.
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
        """Deals out the samples since the mixture last changed."""
        return self.position.mixture

    def indices(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Source of each sample, and window counted over the files of all sources; int64 arrays."""
        sources, draws = self.position(samples)
        windows = np.empty_like(draws)
        for place, order in enumerate(self._orders):
            mine = sources == place
            windows[mine] = self._bases[place] + order(draws[mine])
        return sources, windows

    def rows(self, samples: np.ndarray) -> Batch:
        """The rows of any samples, int64 [B], whichever device reads them."""
        sources, windows = self.indices(samples)
        files = [file for source in self.sources for file in source.records.files]
        copies = -(-len(windows) // self._total)  # see batches
        (ids,) = _read(files * copies, windows, len(windows))
        return make_batch(ids, sources, self._vocabulary, self._document_mask)

    def batches(self, position: int = 0) -> Iterator[Batch]:
        """The batches from sample `position` on, without end."""
        files = [file for source in self.sources for file in source.records.files]
        leg = min(max(_LEG, self._total // _LEGS_PER_EPOCH), self._total) // self._batch_size or 1
        while True:
            starts = position + np.arange(leg) * self.samples_per_batch + self._rank * self._batch_size
            sources, windows = self.indices(starts[:, None] + np.arange(self._batch_size))
            # MindSpore wants no more indices than there are windows; a batch may be larger than the corpus.
            copies = -(-self._batch_size // self._total)
            blocks = _read(files * copies, windows.ravel(), self._batch_size)
            for ids, source_ids in zip(blocks, sources, strict=True):
                yield make_batch(ids, source_ids, self._vocabulary, self._document_mask)
            position += leg * self.samples_per_batch

    def plan(self, samples: int, now: int = 0) -> str:
        """The table of what `samples` samples read from each source; see `plan_table`."""
        return plan_table(self.position, samples, self.sources[0].records.manifest.seq_length, now)


def _unread(source: Source) -> SourcePlace:
    manifest = source.records.manifest
    return SourcePlace.new(source.name, source.weight, manifest.windows, manifest.digest)


class ValidationBatches:
    """All windows of one set of records once, in written order, in batches of one shape.

    The last batch is filled up with rows of <pad>, whose loss_mask is 0. Every rank gets the same number of
    batches.

    Args:
        records: The held-out set.
        batch_size: Rows of this device's batch, B.
        document_mask: See `make_batch`.
        rank: See `TrainingBatches`.
        world_size: See `TrainingBatches`.
    """

    def __init__(
        self,
        records: Records,
        batch_size: int,
        document_mask: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._records = records
        self._batch_size = batch_size
        self._document_mask = document_mask
        self._rank = rank
        self._samples_per_batch = batch_size * world_size

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self._records.manifest.windows // self._samples_per_batch)

    def __iter__(self) -> Iterator[Batch]:
        manifest = self._records.manifest
        places = np.arange(len(self) * self._samples_per_batch).reshape(len(self), -1, self._batch_size)
        mine = places[:, self._rank].ravel()
        shape, sources = (self._batch_size, manifest.seq_length + 1), np.zeros(self._batch_size, np.int32)
        blocks = _read(self._records.files, mine[mine < manifest.windows], self._batch_size)
        for _ in range(len(self)):
            windows = np.full(shape, manifest.vocabulary.pad_id, np.int32)
            found = next(blocks, windows[:0])
            windows[: len(found)] = found
            yield make_batch(windows, sources, manifest.vocabulary, self._document_mask)


def open_sources(
    config: DataConfig,
    *,
    seq_length: int,
    vocab_size: int,
    tokenizer_digest: str | None = None,
    full: bool = True,
) -> tuple[list[Source], Records | None]:
    """Opens every set of records a run names; see `open_records`.

    Returns:
        The training sources in the config's order, and the validation records if there are any.

    Raises:
        ValueError: All faults of all sets, and sets that do not fit each other.
    """
    folders = {f"data.train.{name}": source.records for name, source in config.train.items()}
    if config.validation is not None:
        folders["data.validation"] = config.validation
    opened: dict[str, Records] = {}
    faults = []
    for key, folder in folders.items():
        try:
            opened[key] = open_records(
                folder,
                seq_length=seq_length,
                vocab_size=vocab_size,
                tokenizer_digest=tokenizer_digest,
                full=full,
            )
        except ValueError as error:
            faults.append(f"{key}: {error}")
    faults.extend(_strangers(opened))
    if faults:
        raise ValueError("\n".join(faults))
    sources = [
        Source(name, opened[f"data.train.{name}"], source.weight) for name, source in config.train.items()
    ]
    return sources, opened.get("data.validation")


def _strangers(opened: dict[str, Records]) -> Iterator[str]:
    for key, records in opened.items():
        first = next(iter(opened))
        mine, theirs = records.manifest.vocabulary, opened[first].manifest.vocabulary
        if mine != theirs:
            yield (
                f"{key}: its tokenizer or control ids differ from those of {first} "
                f"({_told(mine)}; {first}: {_told(theirs)}); preprocess all sets with one tokenizer and one "
                "--end-of-document"
            )


def _told(vocabulary: Vocabulary) -> str:
    pieces = f"{vocabulary.size} pieces with the digest {vocabulary.digest[:12]}..."
    return f"{pieces}, documents end with {vocabulary.end_of_document}"


def _read(files: list[str], windows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Reads windows by number in blocks of int32 [batch_size, S + 1]; the last one may have fewer rows."""
    import mindspore.dataset as ds  # heavy

    if not len(windows):
        return
    sampler = ds.SubsetSampler(windows.tolist())
    dataset = ds.MindDataset(files, columns_list=[COLUMN], sampler=sampler, num_parallel_workers=_READERS)
    dataset = dataset.batch(batch_size, num_parallel_workers=1)
    for row in dataset.create_dict_iterator(num_epochs=1, output_numpy=True):
        yield row[COLUMN]
