"""Items of work and what each leaves: `part-00012.*`, and last `part-00012.json`, which vouches for them.

An item without its .json is made anew; one whose .json names the same input is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pangu_alpha.corpus.engine import store
from pangu_alpha.corpus.engine.ledger import Ledger
from pangu_alpha.files.shown import shown
from pangu_alpha.files.writing import json_text

GROUP_BYTES = 32 << 20  # of a row group of texts
GROUP_ROWS = 2000  # of a row group of texts; worker functions get no larger batches


class LedgerError(ValueError):
    """Counts that must be equal are not: documents were lost or counted twice."""


class DamagedError(ValueError):
    """A file is not the one that its .json describes."""


@dataclass(frozen=True)
class Work:
    """One item of a stage: what a worker process or an executor is given. It is pickled.

    Args:
        number: Of the item; its files have it in their names.
        source: Name of the source that all its documents come from; "" of items of several.
        folder: Of the stage.
        digest: Of all that the item reads.
        function: A function at module level, function(work, part), which does the work.
        settings: Of the stage.
        reads: What the function reads, in its own form.
    """

    number: int
    source: str
    folder: str
    digest: str
    function: Callable[..., None]
    settings: Any = None
    reads: Any = None

    @property
    def record_path(self) -> str:
        """Path of the item's .json."""
        return record_path(self.folder, self.number)

    def path(self, name: str) -> str:
        """Path of one of the item's files, such as `text.parquet`."""
        return part_path(self.folder, self.number, name)


def part_path(folder: str, number: int, name: str) -> str:
    """Path of a file of an item, such as `text.parquet`."""
    return store.join(folder, f"part-{number:05d}.{name}")


def record_path(folder: str, number: int) -> str:
    """Path of an item's .json."""
    return part_path(folder, number, "json")


@dataclass
class Part:
    """What an item has written so far, and its ledger.

    Args:
        facts: What else its .json shall hold.
    """

    work: Work
    ledger: Ledger = field(default_factory=Ledger)
    facts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    open: ExitStack = field(default_factory=ExitStack)

    def table(self, name: str, schema: pa.Schema, path: str | None = None) -> TableWriter:
        """Opens a parquet file, which is complete when the item is.

        Args:
            name: Of the file among those of the item, such as "text".
            path: Of the file, if it does not lie beside the item's .json.
        """
        path = path or self.work.path(f"{name}.parquet")
        return self.open.enter_context(_Closing(TableWriter(self, name, path, schema)))

    def stream(self, name: str) -> HashingStream:
        """Opens a file of bytes, which is complete when the item is."""
        path = self.work.path(name)
        hashing = HashingStream(self.open.enter_context(store.writing(path)))
        self.open.callback(self.note, name, path, hashing, 0)
        return hashing

    def note(self, name: str, path: str, stream: HashingStream, rows: int) -> None:
        """Notes a file that has been written."""
        self.files[name] = {
            "path": store.relative(path, self.work.folder),
            "rows": rows,
            "bytes": stream.count,
            "sha256": stream.digest.hexdigest(),
        }

    def record(self) -> dict[str, Any]:
        """What the item's .json holds.

        Raises:
            LedgerError: The ledger does not balance.
        """
        for fault in self.ledger.faults():
            raise LedgerError(f"{self.work.record_path}: the ledger does not balance: {fault}")
        counted = self.ledger.read.documents or self.ledger.dropped
        return {
            "number": self.work.number,
            "source": self.work.source,
            "input": self.work.digest,
            "files": {name: self.files[name] for name in sorted(self.files)},
            "ledger": {self.work.source: self.ledger.plain()} if counted else {},
            "facts": self.facts,
        }


class HashingStream:
    """A stream of bytes that is written once, front to back, and hashed on the way."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.count = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Writes bytes."""
        view = memoryview(data)
        self.digest.update(view)
        self._stream.write(view)
        self.count += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Number of bytes so far."""
        return self.count

    def flush(self) -> None:
        """Does nothing: the file is flushed when it is complete."""

    def close(self) -> None:
        """Does nothing: the file is closed when it is complete."""

    def writable(self) -> bool:
        """Always; pyarrow asks."""
        return True

    def readable(self) -> bool:
        """Never; pyarrow asks."""
        return False

    def seekable(self) -> bool:
        """Never; pyarrow asks."""
        return False


class TableWriter:
    """Writes tables into a parquet file; each row group but the last has at least one of GROUP_ROWS rows and
    GROUP_BYTES.

    Equal calls give equal bytes, so what is passed to one call must not depend on workers or engines.
    """

    def __init__(self, part: Part, name: str, path: str, schema: pa.Schema) -> None:
        self._part, self._name, self._path, self._schema = part, name, path, schema
        self._stream_context = store.writing(path)
        self._stream = HashingStream(self._stream_context.__enter__())
        self._writer = pq.ParquetWriter(self._stream, schema, compression="zstd")
        self._held: list[pa.Table] = []
        self._held_rows = self._held_bytes = 0
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        """Adds rows; the table must have the columns of the schema."""
        if not len(table):
            return
        self._held.append(table.select(self._schema.names).cast(self._schema))
        self.rows += len(table)
        self._held_rows += len(table)
        self._held_bytes += self._held[-1].nbytes
        if self._held_rows >= GROUP_ROWS or self._held_bytes >= GROUP_BYTES:
            self._flush()

    def write_columns(self, *columns: Any) -> None:
        """Adds rows, given as arrays or lists in the order of the schema."""
        arrays = [pa.array(each, kind) for each, kind in zip(columns, self._schema.types, strict=True)]
        self.write(pa.Table.from_arrays(arrays, schema=self._schema))

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.concat_tables(self._held), row_group_size=1 << 20)
            self._held, self._held_rows, self._held_bytes = [], 0, 0

    def finish(self, *error: Any) -> None:
        """Ends the file; if an error is passed, the file is given up."""
        if error and error[0] is not None:
            self._writer.is_open = False  # else pyarrow, when it is deleted, writes to the closed draft
            self._stream_context.__exit__(*error)
            return
        try:
            self._flush()
            self._writer.close()
        except BaseException as raised:
            self._stream_context.__exit__(type(raised), raised, raised.__traceback__)
            raise
        self._stream_context.__exit__(None, None, None)
        self._part.note(self._name, self._path, self._stream, self.rows)


class _Closing:
    """Finishes a writer when a stack of contexts is left."""

    def __init__(self, writer: TableWriter) -> None:
        self._writer = writer

    def __enter__(self) -> TableWriter:
        return self._writer

    def __exit__(self, *error: Any) -> None:
        self._writer.finish(*error)


def perform(work: Work, function: Callable[[Work, Part], None] | None = None) -> dict[str, Any]:
    """Does an item's work and writes its .json; returns what the .json holds.

    Args:
        function: What to call instead of the item's own function.

    Raises:
        LedgerError: The item's ledger does not balance.
        OSError: A file cannot be read or written.
    """
    store.make_folder(work.folder)
    store.remove(work.record_path)  # first: it must not vouch for files that are about to be replaced
    part = Part(work)
    with part.open:
        (function or work.function)(work, part)
    record = part.record()
    store.write_bytes(work.record_path, (json_text(record) + "\n").encode())
    return record


def perform_once(work: Work, function: Callable[[Work, Part], None] | None = None) -> None:
    """Does an item's work, unless another attempt has done it: Spark may start one item several times.

    The later attempt may be killed at any moment, so it must not touch what the faster one has finished.
    """
    if not is_done(work):
        perform(work, function)


def perform_job(work: Work, advance: Callable[[int, int], None]) -> None:
    """Does an item's work in a pool of workers."""
    perform(work)
    advance(1, 0)


def verify_job(work: Work, advance: Callable[[int, int], None]) -> None:
    """Checks a finished item's files in a pool of workers."""
    verify(work)
    advance(1, 0)


def read_record(folder: str, number: int) -> dict[str, Any] | None:
    """What an item's .json holds; None if there is none, so that the item is to be made."""
    try:
        return json.loads(store.read_bytes(record_path(folder, number)))
    except FileNotFoundError:
        return None
    except ValueError as error:
        path = shown(record_path(folder, number))
        raise DamagedError(f"{path}: is not JSON; remove it, and the item is made anew") from error


def is_done(work: Work) -> bool:
    """Whether an item has been made from the same input."""
    record = read_record(work.folder, work.number)
    return record is not None and record["input"] == work.digest


def file_path(folder: str, record: Mapping[str, Any], name: str) -> str:
    """Path of a file that a record names."""
    return store.below(folder, record["files"][name]["path"])


def verify(work: Work) -> None:
    """Compares the files of a finished item with its .json.

    Raises:
        DamagedError: A file is missing or has other bytes.
    """
    record = read_record(work.folder, work.number)
    assert record is not None, work.record_path
    for name, file in record["files"].items():
        path = file_path(work.folder, record, name)
        if store.size(path) != file["bytes"] or store.sha256(path) != file["sha256"]:
            raise DamagedError(
                f"{shown(path)}: is not the file that {shown(work.record_path)} describes; it was changed or "
                "damaged after it was written. Remove that .json, and the item is made anew"
            )


def batches(path: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yields the row groups of a parquet file one by one.

    Raises:
        OSError: The file cannot be read.
    """
    source = store.open_input(path) if store.is_remote(path) else pa.OSFile(path)
    with source, pq.ParquetFile(source) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns)
