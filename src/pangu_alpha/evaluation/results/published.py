"""The figures that the paper printed, and what a reader must know before comparing with them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pangu_alpha.config.schema import read_yaml

COLUMNS = ("zero", "one", "few")


@dataclass(frozen=True)
class Published:
    """One cell of the paper's tables.

    Args:
        model: "CPM", "2.6B" or "13B".
        column: "zero", "one" or "few".
        values: Figures in the order of `names`; shares are in [0, 1].
        names: What they are: "acc", or "exact_match" and "f1".
        table: The table of the paper it stands in.
        shots: Numbers of examples as printed; "dyn" is as many as fit.
        caveats: Reasons why it may not be comparable.
    """

    model: str
    column: str
    values: tuple[float, ...]
    names: tuple[str, ...]
    table: str
    shots: str
    caveats: tuple[str, ...] = ()


@functools.cache
def _tables() -> Mapping[str, Any]:
    return read_yaml(Path(__file__).with_name("published.yaml"))


def known_tasks() -> tuple[str, ...]:
    """Names of the tasks with published figures."""
    return tuple(_tables()["tasks"])


def published(task: str, shots: int | None = None) -> tuple[Published, ...]:
    """Returns the paper's figures of a task, or () if it printed none.

    Args:
        task: Name of the task; a FewCLUE set gives the figures of the paper's set of the same kind.
        shots: Number of examples: 0 and 1 choose their columns, more the paper's few-shot column. None gives
            all columns.
    """
    tables = _tables()
    other = tables["alike"].get(task, task)
    entry = tables["tasks"].get(other)
    if entry is None:
        return ()
    caveats = [f"of the paper's own set {other}, which has other items"] if other != task else []
    wanted = COLUMNS if shots is None else (COLUMNS[min(shots, 2)],)
    return tuple(each for each in _cells(entry, caveats) if each.column in wanted)


def general_caveats() -> tuple[str, ...]:
    """What to know about all published figures."""
    return tuple(_tables()["caveats"])


def _cells(entry: Mapping[str, Any], caveats: list[str]) -> list[Published]:
    scale = 1.0 if entry["names"] == ["ppl"] else 100.0
    return [
        Published(
            model=model,
            column=column,
            values=tuple(value / scale for value in values),
            names=tuple(entry["names"]),
            table=str(table),
            shots={"zero": "0", "one": "1", "few": str(entry["shots"])}[column],
            caveats=(*caveats, *entry.get("caveats", ())),
        )
        for table, columns in entry["figures"].items()
        for column, models in columns.items()
        for model, values in models.items()
    ]
