"""plan.py operators: finds the best split of each operator of a block; shows, writes and compiles it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.operator_table import table_text
from pangu_alpha.files.writing import write_text
from pangu_alpha.planner.operators import verify as compiled
from pangu_alpha.planner.operators.draw import draw_operators
from pangu_alpha.planner.operators.found_table import found_table
from pangu_alpha.planner.operators.patterns import operators_text
from pangu_alpha.planner.operators.strategies import best_block

_SHOWN = (2, 4, 8)  # numbers of devices in a picture of a block's possible splits


def run(options: argparse.Namespace, model: ModelConfig, folder: Path) -> int:
    """Searches and shows the best split; writes or compiles it if the options ask for that.

    Args:
        options: Options of the command.
        model: The network whose block is split.
        folder: Folder for the files of --verify.

    Returns:
        Exit code; 1 if the compiled calls differ from the predicted ones.

    Raises:
        ValueError: No split fits, or the best one cannot be written or compiled.
    """
    asked = (model, options.devices, options.batch_size, options.micro_batches, options.limit)
    print(operators_text(*asked))
    if options.picture is not None:
        draw_operators(model, _SHOWN, options.picture)
    if options.table_file is not None:
        _write_table(options, model)
    if not options.verify:
        return 0
    lines = compiled.verify(model, best_block(*asked), folder, options.timeout)
    print(f"\n{block_text(lines)}")
    return int(not all(line.equal for line in lines))


def _write_table(options: argparse.Namespace, model: ModelConfig) -> None:
    """Writes the best split as a table, by MindSpore's rules, which do not keep matrices in slices."""
    found = best_block(model, options.devices, options.batch_size, options.micro_batches, options.limit)
    command = (
        f"plan.py operators --model {options.model} --devices {options.devices} --batch-size "
        f"{options.batch_size} --micro-batches {options.micro_batches}"
    )
    comment = (
        f"How each operator of a block is split, found by\n  {command}\n"
        "tp is all axes together, dp the plan's; null leaves a dimension whole. Use it as parallel.table."
    )
    text = table_text(found_table(found, model, options.model), comment)
    write_text(options.table_file, text)
    print(
        f"\nwritten: {options.table_file}; use it with parallel.tp={options.devices} "
        f"parallel.table={options.table_file}"
    )


def block_text(lines: Sequence[compiled.Line]) -> str:
    """Shows the collectives of a block, as modelled and as compiled."""
    return (
        "Collectives of a block, as modelled and as MindSpore compiles them\n"
        f"{compiled.lines_text(list(lines))}"
    )


if __name__ == "__main__":
    from pangu_alpha.cli import no_program

    no_program("pangu_alpha.cli.plan operators")
