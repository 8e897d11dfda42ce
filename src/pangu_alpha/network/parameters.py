"""THE table of a network's parameters: name, shape, initial values, decay, axes and stage of each, as data.

Everything that must know parameters without building the network reads this table: initial values, the
optimizer's decay, layouts, checkpoints, the planner's sizes, and the proof. Another kind of network registers
its own rows for the type of its configuration (`register_rows`); no reader has to change for it.

Axis names are those of the operator table (parallel.sharding); None leaves a dimension whole.
Letters of PanGu-alpha: V vocabulary, H hidden, F feed-forward, S sequence, L layers (including the query
layer).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.network.rows import Axes, Constant, Layers, Normal, Row, Stage, Use, in_layers

LETTERS = {"V": "vocab_size", "H": "hidden_size", "F": "ffn_size", "S": "seq_length"}
_NUMBER = "[0-9]{1,9}"  # a layer's number in a name


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of one network.

    Args:
        name: Full name, as in the network.
        shape: Shape of the whole parameter, without padding.
        axes: For each dimension, the name of the axes it is cut over; None if it is whole.
        stage: The pipeline stage that trains it.
        layer: Number of its layer, from 0; None outside the layers.
        row: The row of the table it comes from.
    """

    name: str
    shape: tuple[int, ...]
    init: Constant | Normal
    decayed: bool
    axes: Axes
    stage: Stage
    layer: int | None
    row: Row

    @property
    def tied(self) -> bool:
        """Whether it is a tied table; see Row."""
        return self.row.tied

    @property
    def cell(self) -> str:
        """Name of the cell that decides its stage: its layer's cell or, outside the layers, its own."""
        if self.row.layers is None:
            return self.name.rpartition(".")[0]
        return self.row.layers.name.replace("*", str(self.layer))


@dataclass(frozen=True)
class _Network:
    """What has been registered for a type of configuration."""

    rows: tuple[Row, ...]
    letters: Mapping[str, str]
    layers: str


_REGISTERED: dict[type, _Network] = {}


def register_rows(
    config_type: type,
    rows: Iterable[Row],
    letters: Mapping[str, str] | None = None,
    layers: str = "num_layers",
) -> None:
    """Registers the parameters of the networks that a type of configuration describes.

    Args:
        config_type: A frozen dataclass. Its subclasses have the same parameters unless they register their
            own.
        rows: Rows in the order in which checkpoints list them.
        letters: Maps each letter of a shape to an attribute of the configuration; None takes PanGu-alpha's.
        layers: Attribute of the configuration that counts its layers; used only if a row has `layers`.

    Raises:
        ValueError: The type already has other rows, a name occurs twice, or a row has a different number of
            axes than of dimensions, or names an unknown letter.
    """
    network = _Network(tuple(rows), dict(LETTERS if letters is None else letters), layers)
    if problems := [*_problems(network)]:
        raise ValueError(f"{config_type.__name__}: " + "; ".join(problems))
    if _REGISTERED.setdefault(config_type, network) != network:
        raise ValueError(
            f"{config_type.__name__}: has other rows already; give each network a type of its own"
        )


def _problems(network: _Network) -> Iterator[str]:
    names = [row.name for row in network.rows]
    yield from (f"{name} is there twice" for name in sorted({n for n in names if names.count(n) > 1}))
    for row in network.rows:
        if len(row.axes) != len(row.sizes):
            yield f"{row.name}: {len(row.axes)} axes for {len(row.sizes)} dimensions"
        unknown = [size for size in row.sizes if not size.isdecimal() and size not in network.letters]
        yield from (f"{row.name}: nothing says what {size} is" for size in unknown)
        if row.stage is Stage.LAYER and not row.layers:
            yield f"{row.name}: on the stage of its layer, but in none"
        if row.layers and not row.name.startswith(f"{row.layers.name}."):
            yield f"{row.name}: does not begin with its layers' name, {row.layers.name}"


def rows_of(config_type: type) -> tuple[Row, ...]:
    """Returns the rows of a configuration's type, in order.

    Raises:
        TypeError: No rows are registered for it.
    """
    return _network(config_type).rows


def letters_of(config_type: type) -> Mapping[str, str]:
    """Returns the letters of a configuration's type: letter -> attribute of the configuration."""
    return _network(config_type).letters


def _network(config_type: type) -> _Network:
    for each in config_type.__mro__:
        if each in _REGISTERED:
            return _REGISTERED[each]
    raise TypeError(
        f"{config_type.__name__}: no rows are registered for it; call network.parameters.register_rows"
    )


@lru_cache(1 << 8)
def parameter_table(config: Any) -> Mapping[str, ParameterSpec]:
    """Returns every parameter of a network by its full name.

    Args:
        config: A hashable configuration whose type has registered rows, such as ModelConfig.

    Raises:
        TypeError: No rows are registered for its type.
    """
    network = _network(type(config))
    return MappingProxyType({spec.name: spec for spec in _specs(network, config)})


def decayed(config: Any) -> dict[str, bool]:
    """Whether weight decay applies to each parameter of a network, by name."""
    return {name: spec.decayed for name, spec in parameter_table(config).items()}


def _specs(network: _Network, config: Any) -> Iterator[ParameterSpec]:
    for layers, group in itertools.groupby(network.rows, lambda row: row.layers):
        rows = tuple(group)
        for layer in [None] if layers is None else layers.numbers(layer_count(config)):
            yield from (_spec(row, layer, network, config) for row in rows)


def _spec(row: Row, layer: int | None, network: _Network, config: Any) -> ParameterSpec:
    sizes = (int(n) if n.isdecimal() else getattr(config, network.letters[n]) for n in row.sizes)
    init = row.init.at_depth(layer_count(config)) if row.layers else row.init
    name = row.name if layer is None else row.name.replace("*", str(layer))
    return ParameterSpec(name, tuple(sizes), init, row.decayed, row.axes, row.stage, layer, row)


def layer_count(config: Any) -> int:
    """Number of layers of a network that has layers."""
    return getattr(config, _network(type(config)).layers)


def parameter_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of a network by name, without padding; see `parameter_table`."""
    return {name: spec.shape for name, spec in parameter_table(config).items()}


def find_row(name: str, config_type: type = ModelConfig) -> Row | None:
    """Returns the row of a parameter's full name, in networks of any depth; None if there is none."""
    return None if "*" in name else _rows_by_name(config_type).get(for_all_layers(name, config_type))


def row_of(name: str, config_type: type = ModelConfig) -> Row:
    """Like `find_row`, for a name that is known to be a parameter's."""
    row = find_row(name, config_type)
    assert row is not None, name
    return row


def row_by_length(attribute: str, config_type: type = ModelConfig) -> Row:
    """The first row whose first dimension is an attribute of the configuration, such as "vocab_size"."""
    letters = letters_of(config_type)
    return next(row for row in rows_of(config_type) if letters.get(row.sizes[0]) == attribute)


def layer_names(num_layers: int, config_type: type = ModelConfig) -> list[str]:
    """The common beginning of the names of each layer's parameters, from the first layer to the last."""
    numbered = {
        number: each.name.replace("*", str(number))
        for each in layers_of(config_type)
        for number in each.numbers(num_layers)
    }
    return [numbered[number] for number in sorted(numbered)]


def layers_expression(number: str, config_type: type = ModelConfig) -> str:
    """A regular expression for the beginnings of layers' names; `number` is the one for a layer's number."""
    return "|".join(re.escape(each.name).replace(r"\*", number) for each in layers_of(config_type))


def layer_of(name: str, config: Any) -> int | None:
    """Number of the layer that contains a parameter or cell of this full name; None outside the layers."""
    config_type: type = type(config)
    for layers, pattern in _layer_patterns(config_type):
        if match := pattern.match(name):
            return int(match[1]) if match.lastindex else layers.numbers(layer_count(config))[0]
    return None


def for_all_layers(name: str, config_type: type = ModelConfig) -> str:
    """A name with "*" instead of its layer's number, so that equal parameters of all layers share it."""
    for layers, pattern in _layer_patterns(config_type):
        if match := pattern.match(name):
            return f"{layers.name}{name[match.end() :]}"
    return name


@lru_cache(1 << 4)
def _rows_by_name(config_type: type) -> Mapping[str, Row]:
    return {row.name: row for row in rows_of(config_type)}


@lru_cache(1 << 4)
def _layer_patterns(config_type: type) -> tuple[tuple[Layers, re.Pattern[str]], ...]:
    """Kinds of layers with patterns of their names; a pattern's only group is the number, if it has one."""
    return tuple(
        (each, re.compile(re.escape(each.name).replace(r"\*", f"({_NUMBER})") + r"(?=\.|$)"))
        for each in layers_of(config_type)
    )


def layers_of(config_type: type = ModelConfig) -> tuple[Layers, ...]:
    """The kinds of layers, in order."""
    return tuple(dict.fromkeys(row.layers for row in rows_of(config_type) if row.layers is not None))


# --- PanGu-alpha. Initial values are those of the 2021 release.

BLOCKS = Layers("blocks.*", end=-1)
QUERY_LAYER = Layers("query_layer", first=-1)  # the last layer, whose query is the next position
_: None = None

_LOGITS = (Use("Logits", "matmul", 1), Use("TiedCrossEntropy", "matmul", 1))


def _table(name: str, shape: str, init: Normal, axes: Axes, stage: Stage, tied: bool = False) -> Row:
    uses = (Use(name, "gather", 0), *(_LOGITS if tied else ()))
    row = Row(f"{name}.table", shape, init, True, axes, stage, group="embeddings", uses=uses)
    return replace(row, tied=tied, in_backward=tied)


def _norm(name: str, stage: Stage) -> tuple[Row, Row]:
    gamma = Row(f"{name}.gamma", "H", Constant(1.0), False, (_,), stage, group="norms")
    beta = replace(gamma, name=f"{name}.beta", init=Constant(0.0), in_backward=False)
    scale, shift = ((Use("Normalize", "norm", place),) for place in (1, 2))
    return replace(gamma, uses=scale), replace(beta, uses=shift)


def _linear(name: str, shape: str, init: Normal, axes: Axes) -> tuple[Row, Row]:
    """Weight [O, I] and bias [O]. Tensor parallelism cuts the bias only together with the outputs."""
    group = "feed-forward" if name.startswith("feed_forward") else "attention"
    side = "Affine row" if axes[0] is None else "Affine column"
    weight = Row(f"{name}.weight", shape, init, True, axes, Stage.LAYER, group=group, cast=True)
    bias = replace(weight, name=f"{name}.bias", init=Constant(0.0), decayed=False, in_backward=False)
    return (
        replace(weight, uses=(Use(side, "matmul", 1),)),
        replace(bias, shape=weight.sizes[0], axes=axes[:1], uses=(Use(side, "add", 1),)),
    )


_LAYER = (
    *_norm("attention_norm", Stage.LAYER),
    *_norm("feed_forward_norm", Stage.LAYER),
    *_linear("attention.query", "H H", Normal(0.01), ("tp", _)),
    *_linear("attention.key", "H H", Normal(0.01), ("tp", _)),
    *_linear("attention.value", "H H", Normal(0.01), ("tp", _)),
    *_linear("attention.output", "H H", Normal(0.02, residual=True), (_, "tp")),
    *_linear("feed_forward.up", "F H", Normal(0.02), ("tp", _)),
    *_linear("feed_forward.down", "H F", Normal(0.02, residual=True), (_, "tp")),
)

PANGU_ALPHA = (
    _table("word_embedding", "V H", Normal(0.02), ("vp", _), Stage.FIRST, tied=True),
    _table("position_embedding", "S H", Normal(0.02, cut=2.0), (_, _), Stage.FIRST),
    _table("query_embedding", "S H", Normal(0.02, cut=2.0), (_, _), Stage.LAST),
    *in_layers(BLOCKS, Stage.LAYER, _LAYER),
    *in_layers(QUERY_LAYER, Stage.LAST, _LAYER),
    *_norm("final_norm", Stage.LAST),
)

TIED_TABLE = next(row for row in PANGU_ALPHA if row.tied)

register_rows(ModelConfig, PANGU_ALPHA)
