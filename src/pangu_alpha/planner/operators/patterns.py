"""Known ways to split a block, to compare the found one with: data parallel, Megatron's, mixtures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.planner.operators.block import FREE, MINDSPORE, Block, block
from pangu_alpha.planner.operators.strategies import BlockStrategy, Choice, cheapest, evaluate
from pangu_alpha.planner.text_tables import table

_COLUMNS = {  # dimension that Megatron cuts, by operator; the residual stream and its norms are not cut
    **dict.fromkeys(("query", "query_bias", "key", "key_bias", "value", "value_bias"), "a"),
    **dict.fromkeys(("core", "output"), "a"),
    **dict.fromkeys(("up", "gelu", "down"), "f"),
}

# Without MindSpore's order of the axes there are many more layouts, and more devices take minutes.
_FREE_DEVICES = 8


def megatron(block: Block, data: int = 1, sequence: bool = False) -> dict[str, Choice]:
    """Megatron's pattern (Shoeybi et al., 2019): products by columns, then by rows; two sums per pass.

    Args:
        data: Number of devices that read different sequences; the others share the products. All devices
            means data parallel.
        sequence: Whether the others cut the residual stream by rows (Korthikanti et al., 2022).

    Returns:
        The choice for every operator.

    Raises:
        ValueError: If axes or lengths are not divisible in this way.
    """
    stream = "s" if sequence else "=" if block.rules.equal_gradients else "=+"
    names, rest = [], data
    for size in block.axes:
        names.append("b" if rest % size == 0 and rest > 1 else "")
        rest //= size if names[-1] else 1
    choices = {}
    for name, operator in block.operators.items():
        tensor = "=+" if name == "normed" else _COLUMNS.get(name, stream)
        choices[name] = Choice(tuple(operator.role(data or tensor) for data in names))
    if rest > 1 or not all(block.divides(choice.roles) for choice in choices.values()):
        raise ValueError(f"data: {data} of {math.prod(block.axes)} devices cannot read different sequences")
    return choices


def patterns(block: Block, micro_batches: int = 1) -> dict[str, BlockStrategy]:
    """The known ways in which a block can be split, by name; leaves out those that are not divisible.

    "dp D x tp T" is Megatron's pattern on T devices, replicated D times.
    """
    found = {}
    for name, options in _named(math.prod(block.axes)):
        try:
            choices = megatron(block, **options)
        except ValueError:
            continue
        found[name] = evaluate(block, choices, micro_batches)
    return found


def _named(devices: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "Megatron", {}
    yield "Megatron, sequence parallel", {"sequence": True}
    for data in range(2, devices):
        if devices % data == 0:
            yield f"dp {data} x tp {devices // data}", {"data": data, "sequence": True}
    yield "data parallel", {"data": devices}


def operators_text(
    model: ModelConfig, devices: int, batch: int, micro_batches: int = 1, limit: float | None = None
) -> str:
    """Compares the found way to split a block with the known ones, as text.

    Args:
        devices: Number of devices that share the block.
        batch: Sequences of a micro-batch on all devices together.
        limit: See strategies.best_block.

    Raises:
        ValueError: If no way fits.
    """
    ways = compared(block(model, devices, batch, MINDSPORE), micro_batches, limit)
    free = {}
    if devices <= _FREE_DEVICES:
        free = compared(block(model, devices, batch, FREE), micro_batches, limit)
    heading = (
        f"A block of hidden size {model.hidden_size} on {devices} devices: {batch} sequences of "
        f"{model.seq_length}, micro-batches {micro_batches}.\nBytes that a device sends in a step for the "
        "block, as MindSpore 2.9 can split it and as any partitioner could,\nand bytes of matrices and their "
        "moments that it holds" + ("." if limit is None else f", at most {limit:,.0f} for the found ones.")
    )
    rows = [("way", "MindSpore", "of Megatron", "any", "of Megatron", "held")]
    for name, way in ways.items():
        rows.append((name, *_sent(name, ways), *_sent(name, free), f"{way.held:,}"))
    found = f"Found for MindSpore\n\n{ways['found'].table()}"
    return "\n\n".join([heading, table(rows[0], rows[1:], right=range(1, 6)), found])


def compared(block: Block, micro_batches: int = 1, limit: float | None = None) -> dict[str, BlockStrategy]:
    """The "found" way within a limit, then the known ones, which may hold more."""
    return {"found": cheapest(block, micro_batches, limit), **patterns(block, micro_batches)}


def _sent(name: str, ways: Mapping[str, BlockStrategy]) -> tuple[str, str]:
    """Bytes that a way sends, and their share of Megatron's; "-" where there is no such way."""
    if name not in ways:
        return "-", "-"
    share = f"{ways[name].sent / ways['Megatron'].sent:.2%}" if "Megatron" in ways else "-"
    return f"{ways[name].sent:,.0f}", share
