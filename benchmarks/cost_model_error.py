"""How far the planner's cost model is off published step times, set by set, beside two simpler predictors.

Takes CSV files of either schema that pangu_alpha.planner.rows reads. Prints one JSON line a set: rows; mape,
median and bias of the relative error; mean rank correlation within groups of equal work; mean regret (by how
much the predicted fastest is slower than the fastest). All are % but rows and spearman. Then the same, on the
same rows, of a constant efficiency fitted to them and of our model with another public planner's constants.
Rows of quality C are not counted; rows that cannot be read are named on stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from pangu_alpha.planner import calibrate
from pangu_alpha.planner.rows import Row, read_table


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("csv", nargs="+", help="tables of measured steps")
    parser.add_argument("--half", choices=("all", "fitted", "held_out"), default="all", help="of the groups")
    parser.add_argument("--groups", action="store_true", help="list the groups of each half on stderr")
    arguments = parser.parse_args()
    tables = [read_table(path) for path in arguments.csv]
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
    if arguments.groups:
        fitted = {calibrate.group_name(row) for row in calibrate.fitted_half(counted)}
        for name in sorted({calibrate.group_name(row) for row in counted}):
            print(f"{'fitted' if name in fitted else 'held out'}: {name}", file=sys.stderr)
    names = {row.set for row in counted} | {name for name, _ in unreadable}
    for name in sorted(names):
        mine = chosen([row for row in counted if row.set == name], arguments.half)
        line = report(name, mine, arguments.half)
        print(json.dumps(line | {"unreadable": sum(entry[0] == name for entry in unreadable)}))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
