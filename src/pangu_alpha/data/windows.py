"""Makes batches of token windows, with the fields that a language model's loss takes, and opens a run's sets.

Legend: B rows, S sequence length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pangu_alpha.config.data import DataConfig
from pangu_alpha.data.batches import Batch, Columns, Source
from pangu_alpha.data.manifest import Records, Vocabulary, open_records
from pangu_alpha.data.records import COLUMN


def document_fields(ids: np.ndarray, end_of_document_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions and document numbers of input ids.

    An end-of-document id belongs to the document that it ends.

    Args:
        ids: Input ids, int32 [B, S].
        end_of_document_id: Id after which a new document starts.

    Returns:
        position_ids, int32 [B, S], which are 0 at each document's first id, and document_ids, int32 [B, S],
        the number of end-of-document ids strictly before. A position may attend to earlier ones with an equal
        document_id.
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
    """Makes a batch of windows.

    Args:
        windows: int32 [B, S + 1].
        source_ids: int [B].
        vocabulary: Gives the ids of <pad> and the end of a document.
        document_mask: False treats each row as one document with positions 0..S-1.

    Returns:
        Fields, each [B, S]: input_ids and labels (the ids one place later), int32; loss_mask, float32, 1
        where the input id is not <pad>, else 0; position_ids and document_ids, int32, see
        `document_fields`. A row's weight is the number of its tokens that count.
    """
    ids = np.ascontiguousarray(windows[:, :-1])
    if document_mask:
        positions, documents = document_fields(ids, vocabulary.end_of_document_id)
    else:
        documents = np.zeros(ids.shape, np.int32)
        positions = documents + np.arange(ids.shape[1], dtype=np.int32)
    mask = (ids != vocabulary.pad_id).astype(np.float32)
    fields = {
        "input_ids": ids,
        "labels": np.ascontiguousarray(windows[:, 1:]),
        "loss_mask": mask,
        "position_ids": positions,
        "document_ids": documents,
    }
    return Batch(fields, mask.sum(1), np.asarray(source_ids, np.int32))


def windows_in_order(records: Records, rows: int) -> Iterator[np.ndarray]:
    """Yields all windows in written order, int32 [<= rows, S + 1], in constant memory.

    Window k + 1 begins where window k ends in the stream of tokens.
    """
    import mindspore.dataset as ds  # here, because the import takes seconds and most callers do not read

    for file in records.files:
        dataset = ds.MindDataset([file], columns_list=[COLUMN], shuffle=False, num_parallel_workers=1)
        for block in dataset.batch(rows).create_dict_iterator(num_epochs=1, output_numpy=True):
            yield block[COLUMN]


@dataclass(frozen=True)
class WindowCollation:
    """Makes batches of windows; implements data.batches.Collation.

    Args:
        vocabulary: Vocabulary of the records.
        seq_length: S of the records.
        document_mask: See `make_batch`.
        columns: Columns of the records to read.
    """

    vocabulary: Vocabulary
    seq_length: int
    document_mask: bool = True
    columns: tuple[str, ...] = (COLUMN,)

    @classmethod
    def of(cls, records: Records, document_mask: bool = True) -> WindowCollation:
        """Returns the collation for these records and for others with the same vocabulary and S."""
        return cls(records.manifest.vocabulary, records.manifest.seq_length, document_mask)

    def batch(self, columns: Columns, samples: np.ndarray, source_ids: np.ndarray) -> Batch:
        """Makes a batch as `make_batch` does; nothing in it is random, so `samples` is not used."""
        return make_batch(columns[COLUMN], source_ids, self.vocabulary, self.document_mask)

    def filled(self, columns: Columns | None, rows: int) -> Columns:
        """Appends rows of <pad>, whose loss_mask is 0, to the windows."""
        windows = np.full((rows, self.seq_length + 1), self.vocabulary.pad_id, np.int32)
        if columns is not None:
            windows[: len(columns[COLUMN])] = columns[COLUMN]
        return {COLUMN: windows}


def open_sources(
    config: DataConfig,
    *,
    seq_length: int,
    vocab_size: int,
    tokenizer_digest: str | None = None,
    full: bool = True,
) -> tuple[list[Source], Records | None]:
    """Opens every set of records that a run names; see `open_records`.

    Returns:
        The training sources in the config's order, and the validation records if there are any.

    Raises:
        ValueError: Lists all faults of all sets, and sets that do not fit each other.
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
