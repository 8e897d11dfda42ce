"""A transformer block as a graph of operators, and how each may be split over the axes of a device grid.

Devices are a grid with one axis for each prime factor of their number. Along an axis a tensor is in one
state: split over one of its dimensions, equal on all devices, or a partial sum. An operator has one role
along each axis, which determines the state that its inputs need, that of its result, and the same for the
gradients. Knows no costs; see planner.operators.strategies. Letters: b batch, s sequence, h hidden, a
attention heads, f feed-forward; "=" equal on all devices, "+" partial sum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pangu_alpha.config.model import ModelConfig

FULL = 4  # bytes of float32
ALIKE, PARTIAL = "=", "+"
STATES = "bshaf=+"
ROWS = "bs"  # dimensions of the rows; every tensor has both


class Role(NamedTuple):
    """What an operator does along one axis of the grid.

    Args:
        name: The dimension along which the work is split; "=" if devices do the same work, "=+" if they do so
            with gradients that are partial sums (differentiation is linear in them).
        needs: State of every input.
        gives: State of the result.
        wants: State of the result's gradient.
        returns: State of every input's gradient.
        parameters: "summed": equal on all devices, with gradients that are partial sums; "cut": split;
            "alike": equal, with equal gradients.
    """

    name: str
    needs: str
    gives: str
    wants: str
    returns: str
    parameters: Literal["summed", "cut", "alike"]


Roles = tuple[Role, ...]  # one for each axis of the grid


@dataclass(frozen=True)
class Operator:
    """A node of the graph: an operator of the network, or several that are always split in the same way.

    Args:
        covers: The operators of parallel.sharding.SHARDING that it stands for.
        inputs: Names of the operators whose results it takes.
        columns: Length of a row of its result; every tensor has batch x sequence rows.
        roles: The roles that it may have along an axis.
        parameters: Number of elements of each parameter, by name.
        product: Whether it multiplies by a matrix of weights, which may then be kept in slices.
        full: Whether it works in float32.
    """

    name: str
    covers: str
    inputs: tuple[str, ...]
    columns: int
    roles: Roles
    parameters: Mapping[str, int]
    product: bool = False
    full: bool = False

    def role(self, name: str) -> Role:
        """Returns its role of a name."""
        return next(role for role in self.roles if role.name == name)


@dataclass(frozen=True)
class Rules:
    """What a partitioner can express, in addition to the roles.

    Args:
        scattered: Dimensions by which partial sums of the forward pass may be summed in slices.
        equal_gradients: Whether devices that do the same work may have equal gradients; otherwise these are
            partial sums, and so are those of the parameters.
        casts_first: Whether a norm's input is cast to float32 in the layout of its producer, so that a change
            of layout sends float32.
        slices: Whether matrices may be kept in slices and gathered for every use (ZeRO's third stage).
        exchanges: Whether AlltoAll exchanges one dimension for another; otherwise one is gathered and the
            other cut.
        ordered: Whether an operator's strategy consists only of numbers of parts: the outer axes cut its
            rows, then come a product's inner and outer dimension, and last the devices that do the same work.
            Parts are then contiguous, and only inner axes can be gathered or cut while outer ones stay.
    """

    scattered: str = "bshaf"
    equal_gradients: bool = True
    casts_first: bool = False
    slices: bool = True
    exchanges: bool = True
    ordered: bool = False


FREE = Rules()
# MindSpore 2.9: MatMul's output strategy scatters its sum by rows only; the derivative of a sum that all
# devices hold is a sum over all of them; a Cast follows its producer, whatever its own strategy; AlltoAll is
# used only if the context option enable_alltoall is set, which we do not do.
MINDSPORE = Rules(scattered="bs", equal_gradients=False, casts_first=True, exchanges=False, ordered=True)


@dataclass(frozen=True)
class Block:
    """A block in a stack of blocks that are all split in the same way; the last result is the first input.

    Args:
        operators: Operators by name, in the order of the forward pass.
        lengths: Lengths of the dimensions, in units that stay together: that of a counts heads.
        width: Bytes of an activation.
        axes: Sizes of the grid's axes, ascending; the first is the outermost.
    """

    operators: Mapping[str, Operator]
    lengths: Mapping[str, int]
    width: int
    axes: tuple[int, ...]
    rules: Rules

    @property
    def rows(self) -> int:
        """Rows on all devices together."""
        return self.lengths["b"] * self.lengths["s"]

    def edges(self) -> Iterator[tuple[str, str, int]]:
        """Yields (producer, consumer, bytes of the whole tensor)."""
        for consumer in self.operators.values():
            width = FULL if consumer.full and self.rules.casts_first else self.width
            for producer in consumer.inputs:
                yield producer, consumer.name, self.rows * self.operators[producer].columns * width

    def choices(self, operator: Operator) -> list[Roles]:
        """All roles along all axes that an operator may have; lengths must be divisible."""
        allowed = [role for role in operator.roles if role.name != "=" or self.rules.equal_gradients]
        pick: Callable[[Iterable[Role], int], Iterable[Roles]]
        pick = itertools.combinations_with_replacement if self.rules.ordered else _product
        found = [roles for roles in pick(allowed, len(self.axes)) if self.divides(roles)]
        return [roles for roles in found if not (self.rules.ordered and self._cuts_early(roles))]

    def _cuts_early(self, roles: Roles) -> bool:
        """Whether roles cut dimension s although dimension b could still be cut.

        To MindSpore both cut rows, so the same split would be tried under two names.
        """
        named = [(role.name, size) for role, size in zip(roles, self.axes, strict=True)]
        parts = math.prod(size for name, size in named if name == "b")
        return any(name == "s" and self.lengths["b"] % (parts * size) == 0 for name, size in named)

    def allows(self, before: str, after: str, forward: bool) -> bool:
        """Whether a tensor (or a gradient, if not `forward`) may go from one layout to another."""
        pairs = list(zip(before, after, strict=True))
        scattered = (ALIKE, PARTIAL, *self.rules.scattered)
        if forward and any(was == PARTIAL and shall not in scattered for was, shall in pairs):
            return False
        return not self.rules.ordered or all(_nested(pairs, dims) for dims in (ROWS, "h", "a", "f"))

    def divides(self, roles: Roles) -> bool:
        """Whether every dimension can be cut into as many parts as the roles demand."""
        return all(
            length % math.prod(n for role, n in zip(roles, self.axes, strict=True) if role.name == name) == 0
            for name, length in self.lengths.items()
        )


def block(model: ModelConfig, devices: int, batch: int, rules: Rules = FREE) -> Block:
    """Builds the block of a PanGu-alpha network on a number of devices.

    Args:
        devices: Number of devices that share the block.
        batch: Sequences of a micro-batch on all devices together.

    Raises:
        ValueError: If there are fewer than two devices or no sequences.
    """
    for name, value, least in (("devices", devices, 2), ("batch", batch, 1)):
        if value < least:
            raise ValueError(f"{name}: {value} must be at least {least}")
    lengths = {
        "b": batch,
        "s": model.seq_length,
        "h": model.hidden_size,
        "a": model.num_heads,
        "f": model.ffn_size,
    }
    operators = {each.name: each for each in (*_attention(model.hidden_size), *_feed_forward(model))}
    width = 4 if model.compute_dtype == "float32" else 2
    return Block(operators, lengths, width, prime_factors(devices), rules)


def _product(roles: Iterable[Role], repeat: int) -> Iterator[Roles]:
    return itertools.product(roles, repeat=repeat)


def _nested(pairs: list[tuple[str, str]], dimensions: str) -> bool:
    """Whether the axes that start or stop cutting the dimensions lie inside those that go on cutting them."""
    kept = [i for i, (was, shall) in enumerate(pairs) if was == shall and was in dimensions]
    moved = [i for i, (was, shall) in enumerate(pairs) if was != shall and {was, shall} & set(dimensions)]
    return not kept or not moved or max(kept) < min(moved)


def prime_factors(number: int) -> tuple[int, ...]:
    """The prime factors in ascending order; () for 1."""
    for factor in range(2, math.isqrt(number) + 1):
        if number % factor == 0:
            return (factor, *prime_factors(number // factor))
    return (number,) if number > 1 else ()


def _split(dimension: str, parameters: Literal["summed", "cut"]) -> Role:
    return Role(dimension, dimension, dimension, dimension, dimension, parameters)


_BY_ROWS = tuple(_split(dimension, "summed") for dimension in ROWS)
_SAME_WORK = (
    Role("=", ALIKE, ALIKE, ALIKE, ALIKE, "alike"),
    Role("=+", ALIKE, ALIKE, PARTIAL, PARTIAL, "summed"),
)


def _multiply(inner: str, outer: str) -> Roles:
    """Roles of x [.., inner] times W [outer, inner]: y = x W^T, dx = dy W, dW = dy^T x.

    Devices never do the same work. Split over the inner dimension, y is a partial sum and dx is split; split
    over the outer one, y is split and dx is a partial sum: Megatron's row and column parallel layers.
    """
    return (
        *_BY_ROWS,
        Role(inner, inner, PARTIAL, ALIKE, inner, "cut"),
        Role(outer, ALIKE, outer, outer, PARTIAL, "cut"),
    )


def _elementwise(column: str) -> Roles:
    """Roles of an operator that works on each element, or that hands a tensor to several others."""
    return (*_BY_ROWS, _split(column, "cut"), *_SAME_WORK)


def _attention(hidden: int) -> Iterator[Operator]:
    """Yields operators from the residual stream to the first sum.

    A norm needs whole rows, the core whole sequences.
    """
    yield _stream("stream", "feed_forward_sum", hidden)
    yield _norm("attention_norm", "stream", hidden)
    yield Operator("normed", "", ("attention_norm",), hidden, _elementwise("h"), {})
    for name in ("query", "key", "value"):
        yield _linear(name, "normed", hidden, hidden, "ha")
        yield _biased(f"{name}_bias", "Affine column.add", (name,), hidden, "a")
    yield Operator(
        "core",
        "SplitHeads, AttentionCore, JoinHeads",
        ("query_bias", "key_bias", "value_bias"),
        hidden,
        (_split("b", "summed"), _split("a", "cut")),
        {},
    )
    yield _linear("output", "core", hidden, hidden, "ah")
    yield _biased("attention_sum", "Affine row.add, dropout, Block.add", ("output", "stream"), hidden, "h")


def _feed_forward(model: ModelConfig) -> Iterator[Operator]:
    """Yields operators from the first sum to the second."""
    hidden = model.hidden_size
    yield _stream("middle", "attention_sum", hidden)
    yield _norm("feed_forward_norm", "middle", hidden)
    yield _linear("up", "feed_forward_norm", hidden, model.ffn_size, "hf")
    yield _biased("gelu", "Affine column.add, Gelu", ("up",), model.ffn_size, "f")
    yield _linear("down", "gelu", model.ffn_size, hidden, "fh")
    yield _biased("feed_forward_sum", "Affine row.add, dropout, Block.add", ("down", "middle"), hidden, "h")


def _stream(name: str, source: str, hidden: int) -> Operator:
    """The residual stream before it forks; it has one layout, in which its gradients are added."""
    return Operator(name, "", (source,), hidden, _elementwise("h"), {})


def _norm(name: str, source: str, hidden: int) -> Operator:
    roles = (*_BY_ROWS, *_SAME_WORK)
    parameters = {"gamma": hidden, "beta": hidden}
    return Operator(name, "LayerNorm, Normalize", (source,), hidden, roles, parameters, full=True)


def _linear(name: str, source: str, inner: int, outer: int, dimensions: str) -> Operator:
    parameters = {"weight": inner * outer}
    roles = _multiply(*dimensions)
    return Operator(name, "Affine.matmul", (source,), outer, roles, parameters, product=True)


def _biased(name: str, covers: str, sources: tuple[str, ...], columns: int, dimension: str) -> Operator:
    return Operator(name, covers, sources, columns, _elementwise(dimension), {"bias": columns})
