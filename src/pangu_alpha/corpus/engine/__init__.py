"""Two verbs, run and exchange, on this machine or on a Spark cluster; items, their ledgers, and their files.

Only `spark` imports pyspark, so it is entered as a module.
"""

from pangu_alpha.corpus.engine.engine import Engine
from pangu_alpha.corpus.engine.items import (
    GROUP_BYTES,
    GROUP_ROWS,
    DamagedError,
    LedgerError,
    Part,
    TableWriter,
    Work,
    batches,
    file_path,
    is_done,
    part_path,
    perform,
    read_record,
)
from pangu_alpha.corpus.engine.ledger import Count, Ledger, add_up, count_texts
from pangu_alpha.corpus.engine.local import LocalEngine
from pangu_alpha.corpus.engine.shuffle import Exchange, part_of

__all__ = [
    "GROUP_BYTES",
    "GROUP_ROWS",
    "Count",
    "DamagedError",
    "Engine",
    "Exchange",
    "Ledger",
    "LedgerError",
    "LocalEngine",
    "Part",
    "TableWriter",
    "Work",
    "add_up",
    "batches",
    "count_texts",
    "file_path",
    "is_done",
    "part_of",
    "part_path",
    "perform",
    "read_record",
    "shuffle",
    "spark",
    "store",
]
