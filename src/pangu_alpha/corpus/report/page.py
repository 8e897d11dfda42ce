"""The report of a run: one HTML file that needs no other."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence

from pangu_alpha.corpus.engine import store
from pangu_alpha.corpus.report import paper, pictures
from pangu_alpha.corpus.report.finished import FinishedRun
from pangu_alpha.corpus.report.measured import Measured, cluster_sizes, measure_run, some_removals
from pangu_alpha.corpus.report.samples import shown_piece, texts_of
from pangu_alpha.corpus.rules import RULES

NAME = "report.html"
_COPIES = {"exact": "exact_duplicate", "components": "near_duplicate"}
_STYLE = """
body { font: 15px/1.55 system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif;
  color: #1f2933; max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.4rem; border-bottom: 1px solid #d9dee4; padding-bottom: .2rem; }
h3 { margin: 1.4rem 0 .3rem; font-size: 1.02rem; } img { max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; } th, td { padding: .25rem .7rem; text-align: right; }
th { border-bottom: 1px solid #9aa5b1; } td:first-child, th:first-child { text-align: left; }
td { border-bottom: 1px solid #eceff2; } p.note { color: #616e7c; font-size: .9rem; }
details { margin: .25rem 0; } summary { cursor: pointer; color: #3a6ea5; }
.piece { border-left: 3px solid #d9dee4; margin: .5rem 0; padding: .1rem .8rem; overflow-wrap: anywhere;
  font-size: .9rem; } .piece.gone { border-color: #c0392b; } .piece.kept { border-color: #3a6ea5; }
.about { color: #616e7c; font-size: .8rem; } mark { background: #ffe8a3; }
"""


def write_report(folder: str) -> str:
    """Writes the report of a finished run into its folder `report`; equal runs have equal reports.

    Returns:
        Path of the file.

    Raises:
        ValueError: The folder holds no finished run.
        OSError: A file cannot be read or written.
    """
    run = FinishedRun(folder)
    body = "\n".join(_body(run, measure_run(run)))
    title = f"Corpus {html.escape(folder.rstrip('/').rpartition('/')[2])}"
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>{title}</h1>\n{body}\n</body></html>\n"
    )
    path = store.join(folder, "report", NAME)
    store.write_bytes(path, page.encode())
    return path


def _body(run: FinishedRun, measured: Measured) -> Iterator[str]:
    yield _summary(run)
    yield "<h2>What was left after each stage</h2>"
    yield _image(pictures.funnel(_funnel(run)), "Documents and bytes after each stage")
    yield "<h2>Why documents were dropped</h2>"
    dropped, came = _dropped(run)
    yield _image(pictures.reasons(dropped, came), "Reasons by source")
    yield _reason_table(run)
    yield "<h2>What was changed in the documents that were kept</h2>"
    yield _changes_table(run)
    yield "<h2>What the rules measured</h2>"
    yield (
        '<p class="note">Documents by the value of each measure, before any rule; the line is the bound, and '
        "red is on its wrong side. Axes of numbers are logarithmic above 1. A rule that not all sources have "
        "is counted for those that have it.</p>"
    )
    yield _image(pictures.histograms(measured.by_rule), "Histograms of measures")
    if (drawn := pictures.overlap(measured.overlap)) is not None:
        yield "<h2>Which rules agree</h2>"
        yield _image(drawn, "Overlap of rules")
    sizes = {reason: cluster_sizes(run, stage) for stage, reason in _COPIES.items()}
    if (drawn := pictures.clusters(sizes)) is not None:
        yield "<h2>How large the clusters of duplicates are</h2>"
        yield _image(drawn, "Sizes of clusters")
    yield "<h2>Beside the paper's corpus</h2>"
    yield from _beside_paper(run)
    yield "<h2>Documents to look at</h2>"
    yield (
        '<p class="note">For each rule 20 documents that it dropped, chosen by a hash of their ids, and the '
        "20 kept ones that come nearest to its bound. Personal data and the user's sensitive words are "
        "hidden.</p>"
    )
    yield from _samples(run, measured)


def _image(source: str, title: str) -> str:
    return f'<img alt="{html.escape(title)}" src="{source}">'


def _summary(run: FinishedRun) -> str:
    read = _total(run, "extract", "in")
    left = _total(run, "write", "out")
    return (
        f"<p>Profile <b>{html.escape(run.profile_name)}</b>: {html.escape(run.profile.summary)}</p>"
        f"<p>{read['documents']:,} documents with {read['bytes']:,} bytes came in; "
        f"<b>{left['documents']:,} documents with {left['bytes']:,} bytes of text</b> "
        f"({left['characters']:,} characters) are left.</p>"
    )


def _total(run: FinishedRun, stage: str, name: str) -> dict[str, int]:
    counts = [each[name] for each in run.ledger[stage].values()]
    return {key: sum(each[key] for each in counts) for key in ("documents", "characters", "bytes")}


def _funnel(run: FinishedRun) -> list[tuple[str, int, int]]:
    came = _total(run, "extract", "in")
    found = [("read", came["documents"], came["bytes"])]
    for stage in run.ledger:
        out = _total(run, stage, "out")
        found.append((stage, out["documents"], out["bytes"]))
    return found


def _dropped(run: FinishedRun) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Documents of each source that were dropped, by reason, and all that came in."""
    found: dict[str, dict[str, int]] = {source: {} for source in run.sources}
    for ledger in run.ledger.values():
        for source, each in ledger.items():
            for reason, count in each["dropped"].items():
                found[source][reason] = found[source].get(reason, 0) + count["documents"]
    first = run.ledger["extract"]
    return found, {
        source: first.get(source, {"in": {"documents": 0}})["in"]["documents"] for source in run.sources
    }


def _reason_table(run: FinishedRun) -> str:
    rows = []
    for stage, ledger in run.ledger.items():
        for source, each in ledger.items():
            for reason, count in each["dropped"].items():
                cells = [count[key] for key in ("documents", "characters", "bytes")]
                rows.append((f"{stage}: {reason}", source, *(f"{cell:,}" for cell in cells)))
    return _table(("stage and reason", "source", "documents", "characters", "bytes"), rows)


def _changes_table(run: FinishedRun) -> str:
    rows = []
    for stage, ledger in run.ledger.items():
        for source, each in ledger.items():
            rows += [
                (f"{stage}: {kind}", source, f"{count:,}", "") for kind, count in each["removed"].items()
            ]
            rows += [(f"{stage}: added", source, f"-{each['added']:,}", "")] if each["added"] else []
            rows += [
                (f"{stage}: {kind}", source, "", f"{count:,}") for kind, count in each["changed"].items()
            ]
    if not rows:
        return '<p class="note">Nothing.</p>'
    return _table(("stage and kind", "source", "characters removed", "documents changed"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _beside_paper(run: FinishedRun) -> Iterator[str]:
    sizes: dict[str, int] = {}
    for source, each in run.ledger["write"].items():
        kind = run.kinds[source]
        sizes[kind] = sizes.get(kind, 0) + each["out"]["bytes"]
    total = sum(sizes.values())
    if not total:
        yield '<p class="note">No document is left to compare.</p>'
        return
    ours, all_theirs = _shares(sizes), _shares(paper.GIGABYTES)
    columns = {
        "Table 3, bytes": all_theirs,
        "Table 4, weights of 200B": paper.WEIGHTS_200B,
        "Table 4, weights of 2.6B and 13B": paper.WEIGHTS_SMALL,
    }
    yield _image(pictures.against_paper(ours, columns), "Shares beside the paper's")
    rows = [
        (
            kind,
            f"{pictures.number_text(sizes.get(kind, 0))}B",
            f"{ours.get(kind, 0):.2f}",
            f"{paper.GIGABYTES[kind]:g}" if kind in paper.GIGABYTES else "-",
            *(f"{column[kind]:.2f}" if kind in column else "-" for column in columns.values()),
        )
        for kind in dict.fromkeys([*paper.GIGABYTES, *sizes])
    ]
    header = ("kind of source", "bytes", "%", "paper, GB", "Table 3, %", "200B, %", "2.6B and 13B, %")
    yield _table(header, rows)
    read = _total(run, "extract", "in")["bytes"]
    share, papers = 100 * total / max(read, 1), 100 * paper.CLEAN_TERABYTES / paper.RAW_TERABYTES
    yield (
        f'<p class="note">{share:.2f} % of the bytes that were read are left; of the paper\'s '
        f"{paper.RAW_TERABYTES} TB, {papers:.2f} %. Weights of Table 4 say what training draws, not what "
        "exists; those of 2.6B and 13B add up to 100.99 as printed.</p>"
    )


def _shares(sizes: Mapping[str, float]) -> dict[str, float]:
    return {name: 100 * size / sum(sizes.values()) for name, size in sizes.items()}


def _samples(run: FinishedRun, measured: Measured) -> Iterator[str]:
    copies = {reason: some_removals(run, stage) for stage, reason in _COPIES.items()}
    wanted = [
        id
        for chosen in (measured.dropped, measured.kept)
        for each in chosen.values()
        for _, _, id, _ in each.held
    ]
    wanted += [id for pairs in copies.values() for pair in pairs for id in pair]
    texts = texts_of(run, wanted)
    for rule in RULES:
        if rule.name not in measured.by_rule:
            continue
        sign = "at least" if rule.direction == "at_least" else "at most"
        yield f"<h3>{rule.name}: {sign} {measured.by_rule[rule.name].bound:g}</h3>"
        yield f'<p class="note">{html.escape(rule.help)}; {html.escape(rule.source)}</p>'
        for title, chosen, kind in (
            ("dropped", measured.dropped, "gone"),
            ("barely kept", measured.kept, "kept"),
        ):
            rows = [(id, value) for _, _, id, value in chosen[rule.name].held if id in texts]
            pieces = [
                _piece(run, texts[id], id, f"{rule.name} = {value:g}", rule.name, kind) for id, value in rows
            ]
            yield _details(f"{len(rows)} {title}", pieces)
    for reason, pairs in copies.items():
        rows = [pair for pair in pairs if set(pair) <= texts.keys()]
        yield f"<h3>{reason}</h3>"
        pieces = []
        for gone, kept in rows:
            pieces.append(_piece(run, texts[gone], gone, f"removed for {kept}", reason, "gone"))
            pieces.append(_piece(run, texts[kept], kept, "kept", reason, "kept"))
        yield _details(f"{len(rows)} removed, each with the copy that was kept", pieces)


def _details(title: str, pieces: Sequence[str]) -> str:
    if not pieces:
        return f'<p class="note">{html.escape(title)}</p>'
    return f"<details><summary>{html.escape(title)}</summary>{''.join(pieces)}</details>"


def _piece(run: FinishedRun, about: tuple[str, str, str], id: int, words: str, rule: str, kind: str) -> str:
    source, url, text = about
    line = html.escape(" · ".join(each for each in (f"id {id}", source, url, words) if each))
    piece = shown_piece(text, rule, run.context)
    return f'<div class="piece {kind}"><div class="about">{line}</div>{piece}</div>'
