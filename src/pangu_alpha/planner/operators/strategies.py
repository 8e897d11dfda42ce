"""Exact search for the cheapest way to split a block's operators, including changes of layout.

Costs are the bytes that a device sends in a step for one block by ring algorithms, or any other price of a
collective. Operators, roles and states are those of planner.operators.block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.planner.cost.collectives import Links
from pangu_alpha.planner.operators.block import FULL, MINDSPORE, STATES, Block, Operator, Roles, Rules, block
from pangu_alpha.planner.operators.elimination import Table, minimise
from pangu_alpha.planner.operators.redistribution import Step, redistribute, sent
from pangu_alpha.planner.text_tables import table

HELD = 3 * FULL  # bytes of a parameter and Adam's two moments

Price = Callable[[Step], float]


def seconds(links: Links) -> Price:
    """Returns a price in seconds, for devices that are neighbours on these links."""

    def price(step: Step) -> float:
        fan = links.fan(step.group, 1)
        return (links.reduce if step.operation == "AllReduce" else links.gather)(step.bytes, fan)

    return price


class Choice(NamedTuple):
    """How an operator is split.

    Args:
        roles: The role along each axis.
        slices: Number of slices into which devices with the same part of a matrix cut that part further. The
            matrix is gathered for every use and freed after it (ZeRO's third stage; Rajbhandari et al.,
            2020).
    """

    roles: Roles
    slices: int = 1


class Transfer(NamedTuple):
    """A collective operation of a step.

    Args:
        what: "producer -> consumer" of a tensor, or "operator.parameter".
        phase: "forward", "backward", "parameter" or "gradient".
        times: Number of calls in a step.
    """

    what: str
    phase: str
    step: Step
    times: int


@dataclass(frozen=True)
class BlockStrategy:
    """A way to split a block.

    Args:
        transfers: Collectives of a step, for this block.
    """

    block: Block
    choices: Mapping[str, Choice]
    micro_batches: int
    transfers: tuple[Transfer, ...]

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a step."""
        return self.cost(sent)

    @property
    def held(self) -> int:
        """Bytes of the block's matrices and their moments (float32) that a device holds."""
        return sum(held(self.block, name, choice) for name, choice in self.choices.items())

    def cost(self, price: Price) -> float:
        """Sum of the prices of all calls."""
        return sum(each.times * price(each.step) for each in self.transfers)

    def table(self) -> str:
        """The roles of the operators along the axes, and the transfers, as text."""
        kept = {
            name: f"1/{choice.slices}" if choice.slices > 1 else "" for name, choice in self.choices.items()
        }
        roles = [
            (name, *(role.name for role in choice.roles), kept[name]) for name, choice in self.choices.items()
        ]
        axes = [f"axis {number} of {size}" for number, size in enumerate(self.block.axes)]
        head = ("for", "phase", "operation", "devices", "payload", "calls", "sent")
        rows = [
            (
                what,
                phase,
                step.operation,
                step.group,
                f"{step.bytes:,.0f}",
                times,
                f"{times * sent(step):,.0f}",
            )
            for what, phase, step, times in self.transfers
        ]
        return "\n\n".join(
            [
                table(("operator", *axes, "kept"), roles),
                table(head, rows, right=(3, 4, 5, 6)),
                f"sent {self.sent:,.0f} bytes, held {self.held:,} bytes",
            ]
        )


def best_block(
    model: ModelConfig,
    devices: int,
    batch: int,
    micro_batches: int = 1,
    limit: float | None = None,
    rules: Rules = MINDSPORE,
) -> BlockStrategy:
    """Finds the way to split a block that sends the fewest bytes.

    Args:
        devices: Number of devices that share the block.
        batch: Sequences of a micro-batch on all devices together.
        micro_batches: Micro-batches of a step. Gradients of parameters that are not kept in slices are summed
            once a step.
        limit: Largest number of bytes that a device may hold of the block's matrices and their moments; None
            for no limit.
        rules: Rules of the partitioner: MINDSPORE, or FREE for any.

    Raises:
        ValueError: If there is no such way.
    """
    return cheapest(block(model, devices, batch, rules), micro_batches, limit)


def cheapest(
    block: Block,
    micro_batches: int = 1,
    limit: float | None = None,
    price: Price = sent,
    allowed: Callable[[str, Choice], bool] = lambda name, choice: True,
) -> BlockStrategy:
    """Finds the way of least cost.

    Args:
        micro_batches: See `best_block`.
        limit: See `best_block`.
        price: Cost of one call.
        allowed: Whether the operator of a name may be split by a choice.

    Raises:
        ValueError: If lengths are not divisible, no choice is allowed, or no way fits the limit.
    """
    options = {
        name: [choice for choice in choices_of(block, operator, limit) if allowed(name, choice)]
        for name, operator in block.operators.items()
    }
    for name, choices in options.items():
        if not choices:
            raise ValueError(
                f"devices: {math.prod(block.axes)} cannot share {name!r}: {block.lengths['b']} sequences and "
                f"{block.lengths['a']} heads do not divide so; use another number of devices or sequences"
            )
    found = minimise(
        _tables(block, options, micro_batches, limit, price), math.inf if limit is None else limit
    )
    if found is None:
        least = sum(min(held(block, name, choice) for choice in each) for name, each in options.items())
        raise ValueError(f"limit: no way holds at most {limit:,.0f} bytes; the least is {least:,}")
    cost, chosen = found
    picked = {name: options[name][chosen[name]] for name in block.operators}
    strategy = evaluate(block, picked, micro_batches)
    assert math.isclose(strategy.cost(price), cost, rel_tol=1e-9, abs_tol=1e-9), (strategy.cost(price), cost)
    return strategy


def evaluate(block: Block, choices: Mapping[str, Choice], micro_batches: int = 1) -> BlockStrategy:
    """Computes what a given way sends.

    Raises:
        ValueError: If a tensor or its gradient cannot be brought into the layout wanted.
    """
    transfers: list[Transfer] = []
    for producer, consumer, size in block.edges():
        for phase, before, after in _journeys(choices[producer].roles, choices[consumer].roles):
            steps = _steps(block, phase, before, after, size)
            if steps is None:
                raise ValueError(f"{producer} -> {consumer}, {phase}: {before} cannot become {after}")
            transfers += [Transfer(f"{producer} -> {consumer}", phase, step, micro_batches) for step in steps]
    for name, choice in choices.items():
        transfers += parameter_transfers(block, name, choice, micro_batches)
    return BlockStrategy(block, dict(choices), micro_batches, tuple(transfers))


def choices_of(block: Block, operator: Operator, limit: float | None) -> list[Choice]:
    """The choices of an operator; matrices are sliced only if there is a limit, as slices never send less.

    Two 16-bit gathers and a 32-bit ReduceScatter for each micro-batch send at least as much as the one 32-bit
    AllReduce that a step needs for whole matrices.
    """
    choices = []
    for roles in block.choices(operator):
        copies = _parts(block, roles, "summed")
        sliced = operator.product and block.rules.slices and limit is not None
        choices += [Choice(roles, n) for n in range(1, copies + 1 if sliced else 2) if copies % n == 0]
    return choices


def held(block: Block, name: str, choice: Choice) -> int:
    """Bytes of an operator's matrix and its moments (float32) that a device holds; 0 if it has no matrix."""
    operator = block.operators[name]
    if not operator.product:
        return 0
    return HELD * operator.parameters["weight"] // (_parts(block, choice.roles, "cut") * choice.slices)


def parameter_transfers(block: Block, name: str, choice: Choice, micro_batches: int) -> Iterator[Transfer]:
    """Yields the sums of the gradients of an operator's parameters, and the gathers of sliced matrices.

    The gradient of a whole parameter is summed once a step. Slices are gathered in the compute type for the
    forward and the backward pass of every micro-batch, and each micro-batch scatters its gradient's sum to
    them.
    """
    copies, cuts = _parts(block, choice.roles, "summed"), _parts(block, choice.roles, "cut")
    for parameter, elements in block.operators[name].parameters.items():
        what, slices, local = f"{name}.{parameter}", choice.slices, elements / cuts
        if slices > 1:
            gather = Step("AllGather", slices, local * block.width)
            yield Transfer(what, "parameter", gather, 2 * micro_batches)
            yield Transfer(what, "gradient", Step("ReduceScatter", slices, local * FULL), micro_batches)
        if copies > slices:
            rest = Step("AllReduce", copies // slices, local / slices * FULL)
            yield Transfer(what, "gradient", rest, 1)


def _parts(block: Block, roles: Roles, parameters: str) -> int:
    """Product of the axes along which parameters are "summed" or "cut"."""
    sizes = zip(roles, block.axes, strict=True)
    return math.prod(size for role, size in sizes if role.parameters == parameters)


def _journeys(producer: Roles, consumer: Roles) -> tuple[tuple[str, str, str], ...]:
    """(phase, layout, wanted layout) of a tensor, and of its gradient, which goes the other way."""
    gives, needs = ("".join(states) for states in ([r.gives for r in producer], [r.needs for r in consumer]))
    returns, wants = (
        "".join(states) for states in ([r.returns for r in consumer], [r.wants for r in producer])
    )
    return ("forward", gives, needs), ("backward", returns, wants)


def _tables(
    block: Block,
    options: Mapping[str, list[Choice]],
    micro_batches: int,
    limit: float | None,
    price: Price,
) -> Iterator[Table]:
    """Yields the costs of every operator's own transfers and of every edge's."""
    for name, choices in options.items():
        costs = np.array(
            [
                sum(
                    each.times * price(each.step)
                    for each in parameter_transfers(block, name, choice, micro_batches)
                )
                for choice in choices
            ]
        )
        units = np.array([0 if limit is None else held(block, name, choice) for choice in choices])
        yield Table((name,), {int(u): np.where(units == u, costs, np.inf) for u in np.unique(units)})
    for producer, consumer, size in block.edges():
        costs = micro_batches * _edge(block, options[producer], options[consumer], size, price)
        yield Table((producer, consumer), {0: costs})


def _edge(
    block: Block, producers: list[Choice], consumers: list[Choice], size: float, price: Price
) -> np.ndarray:
    """Costs of a tensor and its gradient, for all pairs of choices of its producer and its consumer."""

    def cost(phase: str, before: str, after: str) -> float:
        steps = _steps(block, phase, before, after, size)
        return math.inf if steps is None else sum(map(price, steps))

    def states(choices: list[Choice], field: str) -> np.ndarray:
        return np.array([[STATES.index(getattr(role, field)) for role in each.roles] for each in choices])

    forward = _pairs(block, states(producers, "gives"), states(consumers, "needs"), partial(cost, "forward"))
    backward = _pairs(
        block, states(consumers, "returns"), states(producers, "wants"), partial(cost, "backward")
    )
    return forward + backward.T


def _steps(block: Block, phase: str, before: str, after: str, size: float) -> list[Step] | None:
    """Collectives of a change of layout; None if it is impossible."""
    if not block.allows(before, after, phase == "forward"):
        return None
    return redistribute(before, after, block.axes, size, block.rules.exchanges)


def _pairs(
    block: Block, before: np.ndarray, after: np.ndarray, cost: Callable[[str, str], float]
) -> np.ndarray:
    """cost(before, after) of all pairs of layouts [n, axes], [m, axes]; returns [n, m].

    If the order of axes does not matter, pairs that differ only in the order of axes of one size are computed
    once.
    """
    states, axes = len(STATES), block.axes
    sizes = np.unique(axes)  # axes are in ascending order, and so are the sorted codes
    codes = before[:, None] * states + after[None] + states**2 * np.searchsorted(sizes, axes)  # [n, m, axes]
    if not block.rules.ordered:
        codes = np.sort(codes, axis=-1)
    kinds, places = np.unique(codes.reshape(-1, len(axes)), axis=0, return_inverse=True)
    layouts = [
        ["".join(STATES[i] for i in part) for part in divmod(kind % states**2, states)] for kind in kinds
    ]
    return np.array([cost(*pair) for pair in layouts])[places.reshape(codes.shape[:2])]
