"""Compiles a found way to split a block, and compares its collectives with the modelled ones, call by call.

Only to look at the graph: the norm of gradients and checkpoints still follow the sharding table.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.files.writing import write_text
from pangu_alpha.parallel.sharding import SHARDING, Axes, Split
from pangu_alpha.planner.operators.block import ROWS, Operator
from pangu_alpha.planner.operators.strategies import BlockStrategy
from pangu_alpha.planner.text_tables import table
from pangu_alpha.proof.checks import traffic_check
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.graph import mindir

_TABLE = "PANGU_ALPHA_SPLITS"  # environment of the compiling child: file with the rows
_LAYERS = 2  # and one more; what the longer network sends more is one block's
_PRODUCTS = {  # inner and outer dimension, and the operator that adds the bias
    "query": ("h", "a", "query_bias"),
    "key": ("h", "a", "key_bias"),
    "value": ("h", "a", "value_bias"),
    "output": ("a", "h", "attention_sum"),
    "up": ("h", "f", "gelu"),
    "down": ("f", "h", "feed_forward_sum"),
}
_ROWS_OF = {  # rows of the sharding table by operator; a second word is the cell's place in the network
    "attention_norm": ("LayerNorm attention_norm", "Normalize attention_norm"),
    "feed_forward_norm": ("LayerNorm feed_forward_norm", "Normalize feed_forward_norm"),
    "core": ("SplitHeads", "JoinHeads", "AttentionCore", "FlashAttention", "dropout"),
    "gelu": ("Gelu", "FastGelu"),
    "attention_sum": ("Block", "attention_dropout"),
    "feed_forward_sum": ("feed_forward_dropout",),
}


class Line(NamedTuple):
    """Calls of one kind in a step, for one block.

    Args:
        phase: "forward", "backward", "parameter" or "gradient".
        operation: "AllReduce", ...
        group: Devices that take part.
        bytes: Payload of a call.
        modelled: Calls by the model.
        compiled: Calls in the graph.
    """

    phase: str
    operation: str
    group: int
    bytes: int
    modelled: int
    compiled: int

    @property
    def equal(self) -> bool:
        """Whether model and graph agree."""
        return self.modelled == self.compiled


def verify(model: ModelConfig, strategy: BlockStrategy, folder: Path, timeout: float = 1800.0) -> list[Line]:
    """Compiles a strategy for rank 0 and compares.

    Args:
        model: The shape that the strategy was found for.
        strategy: One for MindSpore's rules, without slices.
        folder: Gets the children's files.
        timeout: Seconds for each of two compilations.

    Raises:
        DryRunError: MindSpore refuses the strategy.
        ValueError: The network cannot be split so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "splits.json"
    write_text(path, json.dumps({row: _plain(entries) for row, entries in splits(strategy).items()}))
    plan = ParallelPlan(tp=math.prod(strategy.block.axes), micro_batches=strategy.micro_batches)
    job = Job(model, plan, batch_size=strategy.block.lengths["b"], patch=f"{__name__}:install")
    with _environment(_TABLE, str(path)):
        return compare(strategy, block_calls(job, folder, timeout))


def compare(strategy: BlockStrategy, compiled: Mapping[tuple[str, str, int, int], int]) -> list[Line]:
    """Modelled calls beside those that `block_calls` found, all that either has."""
    modelled: Counter[tuple[str, str, int, int]] = Counter()
    for _, phase, step, times in strategy.transfers:
        modelled[phase, step.operation, step.group, round(step.bytes)] += times
    kinds = sorted({*modelled, *compiled})
    return [Line(*kind, modelled[kind], compiled.get(kind, 0)) for kind in kinds]


def block_calls(job: Job, folder: Path, timeout: float = 1800.0) -> dict[tuple[str, str, int, int], int]:
    """Calls of one block in a step: (phase, operation, devices, payload) to how many.

    Args:
        job: What is compiled, with two layers and with three.
        folder: Gets the children's files.
        timeout: Seconds for each.
    """
    calls: Counter[tuple[str, str, int, int]] = Counter()
    for layers, sign in ((_LAYERS, -1), (_LAYERS + 1, 1)):
        longer = replace(job, model=replace(job.model, num_layers=layers))
        report = compile_rank(longer, 0, folder / f"{layers}_layers", timeout)
        for each, phase in traffic_check.phased(mindir.read(report.graph)):
            calls[phase, each.operation, len(each.ranks), each.bytes] += sign * each.calls
    return {kind: number for kind, number in calls.items() if number}


def lines_text(lines: list[Line]) -> str:
    """A row for every kind of call."""
    rows = [(*line, "yes" if line.equal else "no") for line in lines]
    header = ("phase", "operation", "devices", "payload", "modelled calls", "compiled calls", "equal")
    return table(header, rows, right=(2, 3, 4, 5))


def splits(strategy: BlockStrategy) -> dict[str, dict[str, Split]]:
    """The strategy as rows of the sharding table; axes are numbers of parts.

    Raises:
        ValueError: The network cannot be split so.
    """
    if any(choice.slices > 1 for choice in strategy.choices.values()):
        raise ValueError("limit: matrices kept in slices are not compiled here; leave the limit out")
    first, second = (_parts(strategy, name, "h") for name in ("attention_sum", "feed_forward_sum"))
    if first != second:
        raise ValueError(
            f"the two residual sums are split {first} and {second}, but one operator of the network is both"
        )
    table: dict[str, dict[str, Split]] = {}
    for name, keys in _ROWS_OF.items():
        rows, columns = _parts(strategy, name, "haf")
        names = {"dp": str(rows), "sp": str(rows), "tp": str(columns)}
        for key in keys:
            entries = SHARDING[key.split()[0]]
            table[key] = {attribute: _renamed(split, names) for attribute, split in entries.items()}
    for name in _PRODUCTS:
        table |= _product(strategy, strategy.block.operators[name])
    return table


def install() -> None:
    """Puts the rows in the file named by the environment into the sharding table; in the compiling child."""
    from pangu_alpha.parallel import apply

    plain = json.loads(Path(os.environ[_TABLE]).read_text("utf-8"))
    table = {row: {name: _split(*value) for name, value in each.items()} for row, each in plain.items()}
    named, degrees = apply.row_of, apply.degrees

    def row_of(path: str, cell: Any) -> str:
        kind = type(cell).__name__
        return next(
            (key for place in path.split(".") if (key := f"{kind} {place}") in table), named(path, cell)
        )

    apply.row_of = row_of
    apply.degrees = lambda plan: {str(n): n for n in range(1, plan.devices + 1)} | degrees(plan)
    apply.SHARDING = {**SHARDING, **table}


def _parts(strategy: BlockStrategy, name: str, columns: str) -> tuple[int, int]:
    """How many parts an operator cuts rows and columns into."""
    return _count(strategy, name, ROWS), _count(strategy, name, columns)


def _count(strategy: BlockStrategy, name: str, dimensions: str) -> int:
    roles = zip(strategy.choices[name].roles, strategy.block.axes, strict=True)
    return math.prod(size for role, size in roles if role.name in dimensions)


def _product(strategy: BlockStrategy, operator: Operator) -> dict[str, dict[str, Split]]:
    """Rows of a product: MatMul sums whole, or over all devices that share a sum, by rows."""
    inner, outer, adds = _PRODUCTS[operator.name]
    rows, sums = _parts(strategy, operator.name, inner)
    columns = _count(strategy, operator.name, outer)
    pairs = zip(strategy.choices[operator.name].roles, strategy.choices[adds].roles, strict=True)
    scattered = any(role.name == inner and after.name in ROWS for role, after in pairs)
    output = (str(rows * sums if scattered else rows), str(columns))
    added_rows, added_columns = map(str, _parts(strategy, adds, outer))
    matmul = Split(((str(rows), str(sums)), (str(columns), str(sums))), output)
    return {
        f"Affine {operator.name}": {
            "matmul": matmul,
            "add": Split(((added_rows, added_columns), (added_columns,))),
        },
        f"Linear {operator.name}": {
            "cast_weight": Split(((str(columns), str(sums)),)),
            "cast_bias": Split(((added_columns,),)),
        },
    }


def _renamed(split: Split, names: Mapping[str, str]) -> Split:
    return _split([[axis and names.get(axis, axis) for axis in axes] for axes in split.inputs], None)


def _split(inputs: list[list[str | None]], output: list[str | None] | None) -> Split:
    whole: Axes | None = None if output is None else tuple(output)
    return Split(tuple(tuple(axes) for axes in inputs), whole)


def _plain(entries: Mapping[str, Split]) -> dict[str, tuple]:
    return {name: (split.inputs, split.output) for name, split in entries.items()}


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """A variable that children see."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
