"""The Spark engine. Spark moves work and rows; our functions read and write, exactly as on the local engine.

So no committer, no storage JAR and no accumulator takes part, and a task that is tried again or runs twice
rewrites the same bytes. The only module that imports pyspark.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from pangu_alpha.corpus.engine.items import Work, is_done, perform_once, verify
from pangu_alpha.corpus.engine.shuffle import Exchange, gather
from pangu_alpha.files.shown import shown
from pangu_alpha.processes.workers import Advance

_BATCH_ROWS = 1 << 16  # rows of 16 to 900 bytes in one Arrow batch
_POLL = 0.5  # seconds
_SETTINGS = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(_BATCH_ROWS),
    "spark.sql.adaptive.enabled": "false",  # it may join the parts that we ask for
    "spark.task.cpus": "1",
    "spark.ui.showConsoleProgress": "false",
}


class SparkEngine:
    """Runs items as Spark tasks; see `Engine`.

    Args:
        master: Address of the cluster, such as spark://host:7077 or local[2]; None takes what spark-submit
            says, or local[*].
    """

    def __init__(self, master: str | None = None) -> None:
        try:
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise ValueError(
                "--engine spark: pyspark is not installed; install the extra spark, or take --engine local"
            ) from error
        builder = SparkSession.builder.appName("pangu-alpha corpus")
        for key, value in _SETTINGS.items():
            builder = builder.config(key, value)
        if master:
            builder = builder.master(master)
        with _in_words():
            self._session = builder.getOrCreate()
        self._context = self._session.sparkContext
        self._context.setLogLevel("ERROR")

    def run(self, works: Sequence[Work], advance: Advance) -> None:
        """Does the work of items, each in a task of its own."""
        self._each(works, _performed, advance, len(works))

    def verify(self, works: Sequence[Work], advance: Advance) -> None:
        """Compares the files of finished items with what their .json say."""
        self._each(works, _verified, advance, self._few)

    @property
    def _few(self) -> int:
        """Number of tasks for what takes moments."""
        return 3 * self._context.defaultParallelism

    def _each(
        self, works: Sequence[Work], function: Callable[[bytes], str | None], advance: Advance, tasks: int
    ) -> None:
        if works:
            packed = [pickle.dumps(each) for each in works]
            spread = self._context.parallelize(packed, min(tasks, len(works)))
            with _in_words(), self._progress(len(works), advance):
                _raise_first(spread.map(function).collect())

    def exchange(self, items: Sequence[Work], parts: Sequence[Work], advance: Advance) -> None:
        """Moves the rows of items to parts by Spark's own shuffle, and does the work of the parts."""
        exchange: Exchange = parts[0].reads
        wanted = {each.number: pickle.dumps(each) for each in parts}
        source = self._context.parallelize([(pickle.dumps(each),) for each in items], max(len(items), 1))
        frame = self._session.createDataFrame(source, "work binary")
        names = [f"c{place}" for place in range(len(exchange.columns))]
        moved = (
            frame.mapInArrow(_Reader(exchange, frozenset(wanted)), _schema(names))
            .repartition(len(parts), "part")
            .sortWithinPartitions("part", *names)
            .mapInArrow(_PartWriter(exchange, wanted), "number int, fault string")
        )
        with _in_words(), self._progress(len(parts), advance):
            _raise_first(row.fault for row in moved.collect())
        # a part without rows has met no task
        self._each([each for each in parts if not is_done(each)], _performed_empty, advance, self._few)

    @contextmanager
    def _progress(self, total: int, advance: Advance) -> Iterator[None]:
        """Tells `advance` of finished tasks while a job runs, at most of as many as there are items."""
        ended = threading.Event()
        told = 0

        def watch() -> None:
            nonlocal told
            while not ended.wait(_POLL):
                done = min(self._finished_tasks(), total)
                if done > told:
                    advance(done - told, 0)
                    told = done

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
            ended.set()
            thread.join()
            advance(total - told, 0)
        finally:
            ended.set()

    def _finished_tasks(self) -> int:
        tracker = self._context.statusTracker()
        stages = [tracker.getStageInfo(each) for each in tracker.getActiveStageIds()]
        return min((each.numCompletedTasks for each in stages if each is not None), default=0)

    def close(self) -> None:
        """Leaves the cluster."""
        self._session.stop()


def _schema(names: Sequence[str]) -> str:
    return ", ".join(["part int", *(f"{name} long" for name in names), "others binary"])


def _fault(function: Callable[[], object]) -> str | None:
    """Calls a function; what the user can mend comes back as a text, since trying again would not help."""
    try:
        function()
    except ValueError as error:
        return str(error)
    return None


def _performed(packed: bytes) -> str | None:
    return _fault(lambda: perform_once(pickle.loads(packed)))


def _verified(packed: bytes) -> str | None:
    return _fault(lambda: verify(pickle.loads(packed)))


def _performed_empty(packed: bytes) -> str | None:
    return _fault(lambda: perform_once(pickle.loads(packed), lambda work, part: gather(work, iter(()), part)))


def _raise_first(faults: Iterable[str | None]) -> None:
    for fault in faults:
        if fault is not None:
            raise ValueError(fault)


class _Reader:
    """Reads the rows of items inside mapInArrow."""

    def __init__(self, exchange: Exchange, wanted: frozenset[int]) -> None:
        self._exchange, self._wanted = exchange, wanted

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for packed in batch.column(0).to_pylist():
                for rows in self._exchange.read(pickle.loads(packed)):
                    yield from self._batches(np.asarray(rows, np.int64).reshape(-1, self._exchange.width))

    def _batches(self, rows: np.ndarray) -> Iterator[pa.RecordBatch]:
        parts = self._exchange.part_of(rows[:, 0])
        if len(self._wanted) < self._exchange.partitions:  # after a break some parts are there already
            keep = np.isin(parts, np.array(sorted(self._wanted)))
            rows, parts = rows[keep], parts[keep]
        for start in range(0, len(rows), _BATCH_ROWS):
            yield _packed(
                rows[start : start + _BATCH_ROWS], parts[start : start + _BATCH_ROWS], self._exchange
            )


def _packed(rows: np.ndarray, parts: np.ndarray, exchange: Exchange) -> pa.RecordBatch:
    count = len(exchange.columns)
    names = ["part", *(f"c{place}" for place in range(count)), "others"]
    size = 8 * exchange.others
    offsets = (
        np.arange(0, (len(rows) + 1) * size, size, np.int32) if size else np.zeros(len(rows) + 1, np.int32)
    )
    data = np.ascontiguousarray(rows[:, count:]).tobytes()
    others = pa.Array.from_buffers(pa.binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    columns = [pa.array(np.ascontiguousarray(rows[:, place])) for place in range(count)]
    return pa.RecordBatch.from_arrays([pa.array(parts.astype(np.int32)), *columns, others], names)


def _unpacked(batch: pa.RecordBatch, exchange: Exchange) -> np.ndarray:
    count = len(exchange.columns)
    rows = np.empty((batch.num_rows, exchange.width), np.int64)
    for place in range(count):
        rows[:, place] = batch.column(1 + place).to_numpy()
    if exchange.others:
        content = b"".join(batch.column(1 + count).to_pylist())
        rows[:, count:] = np.frombuffer(content, np.int64).reshape(len(rows), exchange.others)
    return rows


class _PartWriter:
    """Does the work of the parts whose rows come through mapInArrow, one after another."""

    def __init__(self, exchange: Exchange, wanted: dict[int, bytes]) -> None:
        self._exchange, self._wanted = exchange, wanted

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number, blocks in _parts(batches, self._exchange):
            work: Work = pickle.loads(self._wanted[number])

            def gathered(work: Work, part: Any, blocks: Iterator[np.ndarray] = blocks) -> None:
                gather(work, blocks, part)

            fault = _fault(lambda work=work, gathered=gathered: perform_once(work, gathered))  # type: ignore[misc]
            for _ in blocks:  # a part that failed leaves its rows behind
                pass
            yield pa.RecordBatch.from_arrays(
                [pa.array([number], pa.int32()), pa.array([fault], pa.string())], ["number", "fault"]
            )


def _parts(
    batches: Iterable[pa.RecordBatch], exchange: Exchange
) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Cuts a stream of batches, sorted by part, into one stream of blocks for each part."""
    pieces = _pieces(batches, exchange)
    head = next(pieces, None)
    while head is not None:
        number, first = head
        head = None

        def rest(number: int = number) -> Iterator[np.ndarray]:
            nonlocal head
            for other, rows in pieces:
                if other != number:
                    head = (other, rows)
                    return
                yield rows

        yield number, chain([first], rest())


def _pieces(batches: Iterable[pa.RecordBatch], exchange: Exchange) -> Iterator[tuple[int, np.ndarray]]:
    for batch in batches:
        if not batch.num_rows:
            continue
        parts, rows = batch.column(0).to_numpy(), _unpacked(batch, exchange)
        borders = np.flatnonzero(np.diff(parts)) + 1
        for start, stop in zip([0, *borders.tolist()], [*borders.tolist(), len(rows)], strict=True):
            yield int(parts[start]), rows[start:stop]


@contextmanager
def _in_words() -> Iterator[None]:
    """Makes an error of the JVM a ValueError with its last cause, without the stacks of two languages."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("py4j", "pyspark"):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        causes = [line for line in lines if line.startswith(("Caused by:", "OSError", "FileNotFoundError"))]
        cause = (causes or lines or [type(error).__name__])[-1]
        hint = "" if os.environ.get("JAVA_HOME") or causes else " (Spark needs Java 8, 11 or 17)"
        raise ValueError(f"Spark: {shown(cause, 500)}{hint}") from error
