"""The local engine: worker processes of this machine. No Java."""

from __future__ import annotations

from collections.abc import Sequence

from pangu_alpha.corpus.engine import store
from pangu_alpha.corpus.engine.items import Work, is_done, perform, perform_job, verify_job
from pangu_alpha.corpus.engine.shuffle import Exchange, gather, sorted_rows, spread
from pangu_alpha.processes.workers import Advance, Pool

_SHUFFLE = "shuffle"  # folder of an exchange's rows in the folder of its stage


class LocalEngine:
    """Runs items in worker processes; see `Engine`.

    Args:
        workers: Number of processes; 1 works in this one.
    """

    def __init__(self, workers: int) -> None:
        self._pool = Pool(workers)

    def run(self, works: Sequence[Work], advance: Advance) -> None:
        """Does the work of items."""
        self._pool.run(perform_job, works, advance)

    def verify(self, works: Sequence[Work], advance: Advance) -> None:
        """Compares the files of finished items with what their .json say."""
        self._pool.run(verify_job, works, advance)

    def exchange(self, items: Sequence[Work], parts: Sequence[Work], advance: Advance) -> None:
        """Moves the rows of items to parts, through one file per item, and does the work of the parts."""
        exchange: Exchange = parts[0].reads
        folder = store.join(parts[0].folder, _SHUFFLE)
        spreads = [
            Work(each.number, each.source, folder, each.digest, spread, exchange, each) for each in items
        ]
        done = [each for each in spreads if is_done(each)]
        self._pool.run(verify_job, done, _silent)
        known = {each.number for each in done}
        self._pool.run(perform_job, [each for each in spreads if each.number not in known], _silent)
        paths = tuple(each.path("rows") for each in spreads)
        self._pool.run(_gather_job, [(each, paths) for each in parts], advance)
        for each in spreads:
            store.remove(each.record_path)
            store.remove(each.path("rows"))

    def close(self) -> None:
        """Ends the worker processes."""
        self._pool.close()


def _silent(*_: int) -> None:
    pass


def _gather_job(job: tuple[Work, tuple[str, ...]], advance: Advance) -> None:
    work, paths = job
    rows = sorted_rows(paths, work.number, len(work.reads.columns))
    perform(work, lambda work, part: gather(work, rows, part))
    advance(1, 0)
