"""The way of one document through the stages of a run, or what the rules say of a text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pangu_alpha.corpus.report.finished import FinishedRun
from pangu_alpha.corpus.report.samples import without_personal_data
from pangu_alpha.corpus.rules import RULE_NAMES, RULES, Profile, measures, normalise, verdict

_MOST = 20  # documents of one URL


def explain(folder: str, id: int | None = None, url: str | None = None) -> str:
    """Explains what became of documents of a run.

    Args:
        id: Of one document.
        url: Of any number of documents; used if there is no id.

    Raises:
        ValueError: The folder holds no finished run, or the run has no such document.
    """
    run = FinishedRun(folder)
    ids = [id] if id is not None else _ids_of(run, url or "")
    found = ["\n".join(_document(run, each)) for each in ids]
    return "\n\n".join(found) + "\n"


def _ids_of(run: FinishedRun, url: str) -> list[int]:
    found: list[int] = []
    for name in ("text", "dropped"):
        for _, table in run.tables("extract", name, ["id", "url"]):
            rows = zip(table["id"].to_pylist(), table["url"].to_pylist(), strict=True)
            found += [id for id, each in rows if each == url]
    if not found:
        raise ValueError(f"{url!r}: no document of the run has this URL; URLs are compared letter by letter")
    return sorted(found)[:_MOST]


def _document(run: FinishedRun, id: int) -> Iterator[str]:
    file, record = id >> 32, id & 0xFFFFFFFF
    if not 0 <= file < len(run.inputs):
        raise ValueError(f"{id}: the run has no document with this id, for it read {len(run.inputs)} files")
    each = run.inputs[file]
    yield f"document {id}: record {record} of {each['path']} ({each['kind']}, source {each['source']})"
    if (gone := _row(run, "extract", "dropped", id)) is not None:
        yield f"  extract: dropped, {gone['reason']}; URL {gone['url'] or '-'}"
        return
    page = _row(run, "extract", "text", id)
    if page is None:
        raise ValueError(f"{id}: {each['path']} has no record {record} that was read as a document")
    yield f"  URL {page['url'] or '-'}, charset {page['charset'] or '-'}, title {page['title'] or '-'}"
    yield f"  extract: kept, {len(page['text']):,} characters"
    yield from _changed(run, id, page["text"], each["source"])
    yield from _filtered(run, id, each["source"])
    yield from _removed(run, id)


def _row(run: FinishedRun, stage: str, name: str, id: int) -> dict[str, Any] | None:
    return next((row for _, row in run.rows(stage, name, [id])), None)


def _changed(run: FinishedRun, id: int, before: str, source: str) -> Iterator[str]:
    after = _row(run, "normalise", "text", id)
    if after is None:
        return
    changed = normalise(before, run.profile.normalising_of(run.kinds[source]))
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(changed.removed.items()) if number)
    words = [f"characters removed: {kinds}"] if kinds else []
    words += ["traditional made simplified"] if changed.converted else []
    yield f"  normalise: {len(after['text']):,} characters" + "".join(f"; {each}" for each in words)


def _filtered(run: FinishedRun, id: int, source: str) -> Iterator[str]:
    row = _row(run, "filter", "measures", id)
    if row is None:
        return
    yield f"  filter: {'dropped, ' + row['reason'] if row['reason'] else 'kept'}"
    values = np.array([row[name] for name in RULE_NAMES], np.float32)
    yield from rule_rows(values, run.profile.bounds_of(run.kinds[source]))


def rule_rows(values: np.ndarray, bounds: np.ndarray) -> Iterator[str]:
    """Yields a line for each rule: its measure, its bound, and whether it is broken."""
    for place, rule in enumerate(RULES):
        bound = float(bounds[place])
        words = "no bound"
        if not np.isnan(bound):
            alone = np.full(len(bounds), np.nan, np.float32)
            alone[place] = bounds[place]
            broken = bool(verdict(values, alone)[0])
            words = f"{rule.direction.replace('_', ' ')} {bound:g}{': broken' if broken else ''}"
        yield f"    {rule.name:26}{float(values[place]):>12.5g}  {words}"


def _removed(run: FinishedRun, id: int) -> Iterator[str]:
    size = 1
    for stage, kind in (("exact", "an exact copy"), ("quality", ""), ("components", "a near copy")):
        row = _row(run, stage, "removals" if kind else "scores", id)
        if row is None:
            continue
        if not kind:
            if row["reason"] is not None:
                yield f"  {stage}: dropped, {row['reason']}"
                return
        elif row["kept_id"] != id:
            yield f"  {stage}: removed as {kind} of document {row['kept_id']}"
            return
        else:
            size = row["cluster_size"]
    if _row(run, "decontaminate", "text", id) is None:
        if _row(run, "quality", "text", id) is not None:
            yield "  decontaminate: dropped, contaminated"
        return
    last = _row(run, "write", "final", id)
    words = "kept" if last else "left out, beyond the budget"
    yield f"  write: {words}; it stands for {size:,} document{'s' * (size != 1)}"


def explain_text(text: str, profile: Profile, kind: str) -> str:
    """Explains what a profile does to a text.

    Args:
        kind: Of the source that the text is taken to be from.
    """
    changed = normalise(text, profile.normalising_of(kind))
    bounds = profile.bounds_of(kind)
    values = measures(changed.text, profile.context())
    _, reason = verdict(values, bounds)
    kinds = ", ".join(f"{number:,} {name}" for name, number in sorted(changed.removed.items()) if number)
    lines = [
        f"{len(text):,} characters, {len(changed.text):,} after normalising (removed: {kinds or 'none'})",
        f"verdict: {'dropped, ' + reason if reason else 'kept'}",
        *rule_rows(values, bounds),
        "text after normalising, personal data masked:",
        without_personal_data(changed.text),
    ]
    return "\n".join(lines) + "\n"
