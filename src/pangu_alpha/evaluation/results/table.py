"""Results as Markdown: every figure with its interval, chance, the majority share and the paper's figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pangu_alpha.evaluation.results.published import general_caveats
from pangu_alpha.evaluation.results.result import Measured, TaskResult

_HEADER = (
    "Task", "Template", "Scoring", "n-shot", "Seed", "n", "Metric", "Filter", "Value", "95 %", "Chance",
    "Majority", "Paper 2.6B", "Paper 13B",
)  # fmt: skip
_RIGHT = range(3, 6)
_PRINTED_AS = {"rouge_l": "rouge"}


def markdown(model: str, results: Sequence[TaskResult]) -> str:
    """Returns a Markdown page: the table, the spread over seeds, counts, and the paper's caveats."""
    rows = [_row(result, each) for result in results for each in result.measured]
    parts = [f"# {model}", markdown_table(_HEADER, rows, _RIGHT)]
    if spread := [*_spread(results)]:
        header = ("Task", "Template", "n-shot", "Seeds", "Metric", "Mean", "Min", "Max")
        parts += ["## Over seeds", markdown_table(header, spread, range(2, 4))]
    parts += _section("Counted while asking", _counts(results))
    parts += _section("Before comparing with the paper", _caveats(results))
    return "\n\n".join(parts)


def _row(result: TaskResult, each: Measured) -> tuple[str, ...]:
    main = each is result.main
    return (
        result.alias,
        result.template,
        result.scoring,
        str(result.shots),
        str(result.seed),
        f"{result.n:,}",
        each.name,
        each.rule,
        value_text(each),
        interval_text(each),
        percent(result.chance) if main else "",
        percent(result.majority) if main else "",
        *(_published(result, each, model) for model in ("2.6B", "13B")),
    )


def percent(value: float | None) -> str:
    """A share in per cent with two decimals; "" for None."""
    return "" if value is None else f"{100 * value:.2f}"


def value_text(each: Measured) -> str:
    """A figure with its number of decimals; shares in per cent."""
    return _shown(each.value, each)


def _shown(value: float, each: Measured) -> str:
    return percent(value) if each.is_share else f"{value:.3f}"


def interval_text(each: Measured) -> str:
    """The ends of a figure's interval; "" if it has none."""
    found = each.interval
    return "" if found.method == "none" else f"{_shown(found.low, each)} to {_shown(found.high, each)}"


def paper_value(result: TaskResult, each: Measured, model: str) -> float | None:
    """The paper's figure of the same name, from the last table with it; None for any but the main rule."""
    if each.rule != result.main.rule:
        return None
    wanted = _PRINTED_AS.get(each.name, each.name)
    having = (cell for cell in result.published if cell.model == model and wanted in cell.names)
    found = [cell.values[cell.names.index(wanted)] for cell in having]
    return found[-1] if found else None


def _published(result: TaskResult, each: Measured, model: str) -> str:
    value = paper_value(result, each, model)
    return "" if value is None else _shown(value, each)


def _spread(results: Sequence[TaskResult]) -> Iterable[tuple[str, ...]]:
    """Mean, least and largest main figure of results that differ in the seed only."""
    kinds: dict[tuple[object, ...], list[TaskResult]] = {}
    for each in results:
        kinds.setdefault((each.task, each.template, each.scoring, each.ways, each.shots), []).append(each)
    for same in kinds.values():
        if len(same) > 1:
            main, values = same[0].main, [each.main.value for each in same]
            figures = (sum(values) / len(values), min(values), max(values))
            shown = [_shown(value, main) for value in figures]
            yield (same[0].alias, same[0].template, str(same[0].shots), str(len(same)), main.name, *shown)


def _counts(results: Sequence[TaskResult]) -> Iterable[str]:
    for each in results:
        if found := [f"{count:,} {name.replace('_', ' ')}" for name, count in each.counts.items() if count]:
            yield f"{each.name}: {', '.join(found)}"


def _caveats(results: Sequence[TaskResult]) -> Iterable[str]:
    found = [
        f"{each.title}: {caveat}" for each in results for cell in each.published for caveat in cell.caveats
    ]
    if any(each.published for each in results):
        yield from general_caveats()
    yield from dict.fromkeys(found)


def _section(title: str, lines: Iterable[str]) -> list[str]:
    lines = [f"- {line}" for line in lines]
    return [f"## {title}", "\n".join(lines)] if lines else []


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int]) -> str:
    """A Markdown table; columns numbered in `right` are aligned to the right."""
    right = set(right)
    line = ["---:" if column in right else "---" for column in range(len(header))]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, line, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
