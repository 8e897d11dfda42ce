"""How far the planner's cost model is off published step times, set by set, beside two simpler predictors.

Takes CSV files of either schema that planner.calibration.published reads. Prints one JSON line a set: rows;
mape, median and bias of the relative error; mean rank correlation within groups of equal work; mean regret
(by how much the predicted fastest is slower than the fastest). All are % but rows and spearman. Then the
same, on the same rows, of a constant efficiency fitted to them and of our model with another public
planner's constants. Rows of quality C are not counted; rows that cannot be read are named on stderr. --fit
prints the constants of each device type, fitted to the same half of the groups as the shipped ones.
--splits N asks whether that half was lucky: constants are fitted to N other halves, and each set's line has
mean and worst of every figure on the groups that were held out.
--leave-one-size-out asks how the model extrapolates in size: sizes between two powers of two are one size;
for each device type, constants are fitted without it, and its rows predicted. There is a line for each set
and size, one for each set, and one for all, which names the bias of the largest size.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pangu_alpha.planner.calibration import calibrate
from pangu_alpha.planner.calibration.published import Row, read_table
from pangu_alpha.planner.cost.hardware import Constants

_SPLIT_TRIALS = 600  # of the fit to each half
_STARTS = 3  # searches of --fit, of which the best counts
_SIZE_TRIALS = 200  # of each fit without a size
_LOW_IS_WORSE = ("spearman",)


def report(name: str, rows: Sequence[Row], half: str) -> dict[str, Any]:
    """One line of the report."""
    line = {"set": name, **calibrate.errors(rows, calibrate.shipped(rows))}
    line["constant"] = calibrate.errors(rows, calibrate.constant_efficiency(rows))
    line["other_planner"] = calibrate.errors(rows, calibrate.of_other_planners(rows))
    wins = bool(rows) and line["mape"] < line["constant"]["mape"]
    return line | {"beats_constant": wins, "half": half}


def chosen(rows: Sequence[Row], half: str) -> list[Row]:
    """Rows of the groups that the shipped constants were fitted to, or of the others, or all."""
    fitted = {id(row) for row in calibrate.fitted_half(rows)}
    return [row for row in rows if half == "all" or (id(row) in fitted) == (half == "fitted")]


def split_lines(rows: Sequence[Row], splits: int) -> list[dict[str, Any]]:
    """One line a set: mean and worst of the figures on the held-out halves of several splits."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sorted({row.set for row in rows})}
    for salt in range(splits):
        half = calibrate.fitted_half(rows, salt)
        constants = calibrate.fit_devices(half, _SPLIT_TRIALS)
        taken = {id(row) for row in half}
        for name, lines in found.items():
            mine = [row for row in rows if row.set == name and id(row) not in taken]
            if mine:
                lines.append(held_out(mine, constants))
        print(f"split {salt + 1} of {splits} done", file=sys.stderr, flush=True)
    return [{"set": name, "splits": len(lines), **summary(lines)} for name, lines in found.items()]


def held_out(rows: Sequence[Row], constants: Mapping[str, Constants]) -> dict[str, Any]:
    """Figures of rows; the shipped constants stand in for a device that the other half does not have."""
    return calibrate.errors(
        rows, [calibrate.predict(row, constants.get(row.cluster.device.name)) for row in rows]
    )


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and worst of each figure."""
    result = {}
    for key in ("mape", "median", "spearman", "regret"):
        values = [line[key] for line in lines if line[key] is not None]
        if values:
            worst = min(values) if key in _LOW_IS_WORSE else max(values)
            result[key] = {"mean": round(statistics.fmean(values), 4), "worst": worst}
    return result


def size_lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Lines by set and size, by set, and one of all rows, predicted by fits that never saw their size."""
    seconds = dict(zip(map(id, rows), calibrate.size_left_out(rows, _SIZE_TRIALS), strict=True))
    named: dict[str, list[Row]] = {name: [] for name in sorted({row.set for row in rows})}
    for row in rows:
        named[row.set].append(row)
    lines = [
        {"set": name, "size": size_name(size), **of_size(mine, size, seconds)}
        for name, mine in named.items()
        for size in sizes(mine)
    ]
    sets = [{"set": name, **of_set(mine, seconds)} for name, mine in named.items()]
    total = {"set": "all", **of_set(rows, seconds)}
    total["mape_of_sets"] = round(statistics.fmean(line["mape"] for line in sets), 2)
    return [*lines, *sets, total]


def sizes(rows: Sequence[Row]) -> list[int]:
    """The classes of the rows' sizes, the smallest first."""
    return sorted(set(map(calibrate.size_class, rows)))


def size_name(size: int) -> str:
    """A class as a range of parameters."""
    return f"{2**size / 1e9:.3g} to {2 ** (size + 1) / 1e9:.3g} billion"


def of_size(rows: Sequence[Row], size: int, seconds: Mapping[int, float]) -> dict[str, Any]:
    """Figures of the rows of one size; `seconds` holds predictions by id of row."""
    return of_rows([row for row in rows if calibrate.size_class(row) == size], seconds)


def of_set(rows: Sequence[Row], seconds: Mapping[int, float]) -> dict[str, Any]:
    """Figures of rows, and the bias of the largest size among them."""
    largest = sizes(rows)[-1]
    bias = of_size(rows, largest, seconds)["bias"]
    return of_rows(rows, seconds) | {"largest": size_name(largest), "largest_bias": bias}


def of_rows(rows: Sequence[Row], seconds: Mapping[int, float]) -> dict[str, Any]:
    return calibrate.errors(rows, [seconds[id(row)] for row in rows])


def fitted_lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line a device: its constants, three digits each, and which of them the rows tell."""
    half, lines = calibrate.fitted_half(rows), []
    for device, constants in calibrate.fit_devices(half, starts=_STARTS).items():
        mine = [row for row in half if row.cluster.device.name == device]
        values = {name: float(f"{value:.3g}") for name, value in dataclasses.asdict(constants).items()}
        told = calibrate.told(mine, Constants())
        sets = sorted({row.set for row in mine})
        lines.append({"device": device, "rows": len(mine), "sets": sets, "constants": values, "told": told})
    return lines


def read(paths: Sequence[str]) -> tuple[list[Row], list[tuple[str, str]]]:
    """Rows that count, and set and reason of those that cannot be read, which are named on stderr."""
    tables = [read_table(path) for path in paths]
    rows = [row for table in tables for row in table.rows]
    unreadable = [entry for table in tables for entry in table.unreadable]
    for name, reason in unreadable:
        print(f"unreadable: {name} {reason}", file=sys.stderr)
    counted = calibrate.counted(rows)
    print(
        f"{len(rows) + len(unreadable)} rows: {len(unreadable)} unreadable, "
        f"{len(rows) - len(counted)} of quality C not counted",
        file=sys.stderr,
    )
    return counted, unreadable


def list_groups(rows: Sequence[Row]) -> None:
    """Names the groups of each half on stderr."""
    fitted = {calibrate.group_name(row) for row in calibrate.fitted_half(rows)}
    for name in sorted({calibrate.group_name(row) for row in rows}):
        print(f"{'fitted' if name in fitted else 'held out'}: {name}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("csv", nargs="+", help="tables of measured steps")
    parser.add_argument("--half", choices=("all", "fitted", "held_out"), default="all", help="of the groups")
    parser.add_argument("--groups", action="store_true", help="list the groups of each half on stderr")
    parser.add_argument("--fit", action="store_true", help="fit constants; takes minutes")
    parser.add_argument("--leave-one-size-out", action="store_true", help="fit without each size; minutes")
    parser.add_argument("--device", help="only rows of devices whose names start so, such as A100")
    parser.add_argument("--splits", type=int, metavar="N", help="fit to N other halves; a minute each")
    arguments = parser.parse_args()
    counted, unreadable = read(arguments.csv)
    if arguments.device:
        counted = [row for row in counted if row.cluster.device.name.startswith(arguments.device)]
    if arguments.groups:
        list_groups(counted)
    if arguments.fit:
        lines = fitted_lines(counted)
    elif arguments.leave_one_size_out:
        lines = size_lines(counted)
    elif arguments.splits:
        lines = split_lines(counted, arguments.splits)
    else:
        lines = []
        for name in sorted({row.set for row in counted} | {name for name, _ in unreadable}):
            line = report(name, chosen([r for r in counted if r.set == name], arguments.half), arguments.half)
            lines.append(line | {"unreadable": sum(entry[0] == name for entry in unreadable)})
            if line["rows"] and not line["beats_constant"]:
                print(f"{name}: does not beat the constant efficiency", file=sys.stderr)
    for line in lines:
        print(json.dumps(line))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
