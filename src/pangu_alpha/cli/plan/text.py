"""Formats the results of plan.py as aligned tables of plain text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pangu_alpha.network.parameters import for_all_layers
from pangu_alpha.parallel.mesh import RANK_ORDER, Mesh
from pangu_alpha.planner.text_tables import table
from pangu_alpha.proof.checks.traffic import BY_TABLE
from pangu_alpha.proof.dry_run.report import Placement, RankSummary
from pangu_alpha.proof.dry_run.strategy_searches import Way, side_by_side, strategy_text
from pangu_alpha.proof.replay.replay import ReplayReport

_FEW = 5  # most sentences of one kind to show; --output writes all of them


def size(count: float) -> str:
    """A number of bytes in the most readable unit; units are powers of 1000."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count:.0f} B"


def rank_text(summary: RankSummary) -> str:
    """Shows everything about one rank."""
    held = ", ".join(f"{kind} {size(count)}" for kind, count in summary.bytes.items())
    whole = "" if summary.seconds is None else f" ({summary.seconds:.0f} s with starting and building)"
    return "\n\n".join(
        [
            f"rank {summary.rank}, stage {summary.stage}: compiled in {summary.compile_seconds:.1f} s{whole}"
            f", graph of {summary.nodes} nodes\nholds {held}, {size(summary.held)} in all\n"
            f"{host_text(summary)}\n{stubs_text(summary)}",
            "Strategies (parts of each input's dimensions)\n" + strategies_text(summary),
            "Parameters\n" + placements_text(summary.placements),
            "Traffic of a step\n" + traffic_text(summary),
            *([dropout_text([summary])] if summary.dropout else []),
        ]
    )


def stubs_text(summary: RankSummary) -> str:
    """Shows which functions of CANN were answered by stubs; unchecked functions are refused earlier."""
    calls = summary.stub_calls
    if not calls:
        return "no stub of CANN was called"
    functions = "1 function" if len(calls) == 1 else f"{len(calls)} functions"
    return (
        f"stubs of CANN: {functions} called, {sum(calls.values())} calls, all of them known to need no answer"
    )


def host_text(summary: RankSummary) -> str:
    """Shows the peak of the process's memory and its limit, by both of two rules if they differ."""
    peak, took = summary.peak_mb * 2**20, summary.initialize_seconds
    made = "without initial values" if took is None else f"with initial values, made in {took:.1f} s"
    limits = {"1.5 GB": summary.slices_limit}
    if summary.host_limit > summary.slices_limit:
        limits[f"{size(summary.host_limit - 1.5 * summary.held)} for its {summary.nodes} nodes"] = (
            summary.host_limit
        )
    said = [
        f"{'within' if peak <= limit else 'ABOVE'} 1.5 x what it holds + {rest} = {size(limit)}"
        for rest, limit in limits.items()
    ]
    last = ", which is the limit of so large a graph" if len(said) > 1 else ", the limit"
    return f"host peak {size(peak)} {made}; {'; '.join(said)}{last}"


def dropout_text(summaries: Sequence[RankSummary], shared: Sequence[str] = ()) -> str:
    """Shows which masks the ranks draw for dropout, what that moves, and what is wrong with it.

    Args:
        summaries: The ranks to show.
        shared: Faults that proof.checks.dropout.shared found among the ranks.
    """
    rows: Counter[tuple[str, ...]] = Counter()
    for summary in summaries:
        for each in summary.dropout:
            cell, cut = for_all_layers(each.cell), ", ".join(each.axes) or "-"
            drawn = "by position" if each.way == "positional" else "device, seeds {} {}".format(*each.seeds)
            rows[cell, cut, _shape(each.shape), drawn, str(each.passes)] += 1
    lines = [(*row, count) for row, count in rows.items()]
    moved = [
        f"rank {each.rank} moves {size(sum(draw.bytes for draw in each.dropout))} in a step for them; the "
        f"device's kernel in all of them would move {size(sum(draw.kernel_bytes for draw in each.dropout))}"
        for each in summaries
    ]
    wrong = [*(fault for each in summaries for fault in each.dropout_faults), *shared]
    header = ("dropout", "cut over", "slice", "mask", "passes", "times")
    return "\n".join([table(header, lines, right=(4, 5)), *moved, *(f"  wrong: {each}" for each in wrong)])


def strategies_text(summary: RankSummary) -> str:
    """Shows a row for every operator."""
    rows = [(each.operator, strategy_text(each), each.count) for each in summary.strategies]
    return table(("operator", "parts", "times"), rows, right=(2,))


def placements_text(placements: Sequence[Placement]) -> str:
    """Shows a row for every parameter, and below it what differs from the sharding table."""
    rows = [
        (
            each.name,
            each.count,
            _shape(each.shape),
            _shape(axis or "-" for axis in each.axes),
            _shape(each.slice_shape),
            _shape(each.held),
            "no" if each.problem else "yes",
        )
        for each in placements
    ]
    lines = [
        table(("parameter", "times", "whole", "cut over", "slice", "held", "by the table"), rows, right=(1,))
    ]
    lines += [f"  {each.name}: {each.problem}" for each in placements if each.problem]
    return "\n".join(lines)


def traffic_text(summary: RankSummary) -> str:
    """Shows a row for every purpose: what the graph sends, and whether the formula predicts the same.

    What is wrong with how overflow is noticed follows below. The calls of a found table have no formula; they
    are compared by the block (see planner.operators.verify).
    """
    rows = []
    for line, link in zip(summary.lines, summary.links, strict=True):
        group = f"{line.axis} ({len(line.groups[0])})" if line.groups else line.axis
        rows.append(
            (
                line.what,
                line.phase,
                line.operation,
                group,
                line.dtype,
                line.calls,
                size(line.bytes),
                "-" if line.what == BY_TABLE else size(line.expected_bytes),
                "a block" if line.what == BY_TABLE else "yes" if line.equal else "NO",
                size(line.wire_bytes),
                link or "-",
            )
        )
    header: tuple[str, ...] = ("what", "phase", "operation", "axis (ranks)", "type", "calls")
    header += ("payload", "by formula", "equal", "sent", "link")
    lines = [table(header, rows, right=(5, 6, 7, 9))]
    lines += [f"  overflow: {each}" for each in summary.overflow[:_FEW]]
    lines.append(wire_text(summary))
    return "\n".join(lines)


def wire_text(summary: RankSummary) -> str:
    """Shows the bytes sent by axis and link, in one line."""
    parts = [
        f"{axis} {link} {size(count)}"
        for (axis, link), count in sorted(summary.wire().items(), key=lambda item: -item[1])
    ]
    return "sent in a step: " + (", ".join(parts) or "nothing")


def _shown_as(axis: str, mesh: Mesh) -> str:
    """The column for an axis named as in Mesh.axis_of; groups over several axes are shown under dp or pp."""
    first = axis.partition(" ")[0].partition("+")[0]
    if axis in ("world", "other", "dp+tp") or first not in RANK_ORDER:
        return "dp" if mesh.dp > 1 else "pp"
    return first


def stages_text(summaries: Sequence[RankSummary], mesh: Mesh, layers: Sequence[int]) -> str:
    """Shows a row for every stage, and below it what is wrong with the host's memory and with placements."""
    rows = []
    for each in summaries:
        sent = dict.fromkeys(RANK_ORDER, 0.0)
        for (axis, _), count in each.wire().items():
            sent[_shown_as(axis, mesh)] += count
        seconds = f"{each.compile_seconds:.0f}"
        peak = f"{each.peak_mb / 1024:.2f} GiB"
        held = [size(count) for count in each.bytes.values()]
        carried = [size(count) for count in sent.values()]
        agrees = "yes" if each.agrees else "NO"
        rows.append(
            (
                each.stage,
                each.rank,
                layers[each.stage],
                seconds,
                peak,
                each.nodes,
                *held,
                *carried,
                agrees,
            )
        )
    header: tuple[str, ...]
    header = ("stage", "rank", "layers", "compile s", "host peak", "nodes", "weights", "moments", "sums")
    header += (*(f"sent {axis}" for axis in RANK_ORDER), "as predicted")
    wrong = [f"  stage {each.stage}: {host_text(each)}" for each in summaries if not each.fits_host]
    wrong += [
        f"  stage {each.stage}: {placed.name}: {placed.problem}"
        for each in summaries
        for placed in each.placements
        if placed.problem
    ]
    return "\n".join([table(header, rows, right=range(12)), *wrong])


def suite_text(reports: Sequence[ReplayReport]) -> str:
    """Shows a row for every replayed plan with its time, and a row for the whole suite."""
    spent = [sum(report.seconds.values()) for report in reports]
    rows: list[tuple[object, ...]] = [
        (report.name, report.ranks, "pass" if report.passed else "FAIL", f"{seconds:.0f}")
        for report, seconds in zip(reports, spent, strict=True)
    ]
    failed = sum(not report.passed for report in reports)
    rows.append(
        (f"{len(reports)} plans", "", f"{failed} failed" if failed else "all pass", f"{sum(spent):.0f}")
    )
    return table(("plan", "processes", "verdict", "seconds"), rows, right=(1, 3))


def ways_text(ways: Sequence[Way]) -> str:
    """Shows strategies and traffic of several ways side by side."""
    names = [way.name for way in ways]
    lines = [f"{way.name}: refused: {way.refused}" for way in ways if way.refused]
    accepted = [way for way in ways if not way.refused]
    shown = [way.name for way in accepted]
    if accepted:
        lines.append(table(("operator", *shown), side_by_side(accepted)))
        kinds = sorted({kind for way in accepted for kind, _ in way.wire})
        rows = [(kind, *(size(dict(way.wire).get(kind, 0.0)) for way in accepted)) for kind in kinds]
        rows.append(("sent in all", *(size(sum(count for _, count in way.wire)) for way in accepted)))
        rows += [
            (f"held: {kind}", *(size(dict(way.bytes)[kind]) for way in accepted))
            for kind in ("weights", "moments")
        ]
        rows.append(("compile s", *(f"{way.seconds:.0f}" for way in accepted)))
        lines.append(table(("rank 0, a step", *shown), rows, right=range(1, len(shown) + 1)))
    return "\n\n".join([f"ways: {', '.join(names)}", *lines])


def _shape(values: Iterable[object]) -> str:
    return "[" + ", ".join(map(str, values)) + "]"
