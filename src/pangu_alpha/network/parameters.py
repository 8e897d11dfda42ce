"""THE table of a network's parameters: name, shape, initial values, decay, axes and stage of each, as data.

Whoever must know a parameter without building the network reads it here: initial values, the optimizer's
decay, layouts, checkpoints, the planner's sizes, the proof. A network of another kind registers rows of its
own for the type of its configuration (`register_rows`); no reader has to be changed for it.

Axis names are those of the operators' table (parallel.sharding). None leaves a dimension whole.
Letters of PanGu-alpha: V vocabulary, H hidden, F feed-forward, S sequence, L layers (query layer included).
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
_NUMBER = "[0-9]{1,9}"  # of a layer, in a name


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter of one network.

    Args:
        name: As in the network.
        shape: Of the whole, without padding.
        init: Initial values.
        decayed: Whether weight decay acts on it.
        axes: Name of the axes that each dimension is cut over.
        stage: Which stage of a pipeline trains it.
        layer: Number of its layer, from 0; None outside of layers.
        row: Its row of the table.
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
        """See Row."""
        return self.row.tied

    @property
    def cell(self) -> str:
        """The cell that is put on a stage for it: its layer's or, outside of layers, its own."""
        if self.row.layers is None:
            return self.name.rpartition(".")[0]
        return self.row.layers.name.replace("*", str(self.layer))


@dataclass(frozen=True)
class _Network:
    """What is registered for a type of configuration."""

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
    """Says which parameters the networks of a configuration's type have.

    Args:
        config_type: A frozen dataclass; its subclasses have the same parameters unless they have own rows.
        rows: In the order in which checkpoints list them.
        letters: Letter of a shape -> the configuration's attribute; PanGu-alpha's when left out.
        layers: The configuration's attribute that counts its layers; needed where a row has `layers`.

    Raises:
        ValueError: The type has other rows already, a name is there twice, or a row has not as many axes as
            dimensions or names a letter that stands for nothing.
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
    """The rows of a configuration's type, in their order.

    Raises:
        TypeError: None are registered.
    """
    return _network(config_type).rows


def letters_of(config_type: type) -> Mapping[str, str]:
    """The letters of a configuration's type: letter -> attribute of the configuration."""
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
    """Every parameter of a network by its full name.

    Args:
        config: A hashable configuration whose type has registered rows, such as ModelConfig.

    Raises:
        TypeError: Its type has none.
    """
    network = _network(type(config))
    return MappingProxyType({spec.name: spec for spec in _specs(network, config)})


def decayed(config: Any) -> dict[str, bool]:
    """Whether weight decay acts on a parameter of a network, by its name."""
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
    """Number of layers of a network whose table has any."""
    return getattr(config, _network(type(config)).layers)


def parameter_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of a network by name, without padding; see `parameter_table`."""
    return {name: spec.shape for name, spec in parameter_table(config).items()}


def find_row(name: str, config_type: type = ModelConfig) -> Row | None:
    """The row of a parameter's full name in networks of any size; None where there is none."""
    return None if "*" in name else _rows_by_name(config_type).get(for_all_layers(name, config_type))


def row_of(name: str, config_type: type = ModelConfig) -> Row:
    """As `find_row`, of a name that is known to be a parameter's."""
    row = find_row(name, config_type)
    assert row is not None, name
    return row


def row_by_length(attribute: str, config_type: type = ModelConfig) -> Row:
    """The first row whose first dimension is an attribute of the configuration, such as "vocab_size"."""
    letters = letters_of(config_type)
    return next(row for row in rows_of(config_type) if letters.get(row.sizes[0]) == attribute)


def layer_names(num_layers: int, config_type: type = ModelConfig) -> list[str]:
    """What the names of each layer's parameters begin with, from the first layer to the last."""
    numbered = {
        number: each.name.replace("*", str(number))
        for each in layers_of(config_type)
        for number in each.numbers(num_layers)
    }
    return [numbered[number] for number in sorted(numbered)]


def layers_expression(number: str, config_type: type = ModelConfig) -> str:
    """A regular expression for what the names of layers begin with; `number` is that for a layer's number."""
    return "|".join(re.escape(each.name).replace(r"\*", number) for each in layers_of(config_type))


def layer_of(name: str, config: Any) -> int | None:
    """Number of the layer that a parameter or a cell is in, by its full name; None outside of layers."""
    config_type: type = type(config)
    for layers, pattern in _layer_patterns(config_type):
        if match := pattern.match(name):
            return int(match[1]) if match.lastindex else layers.numbers(layer_count(config))[0]
    return None


def for_all_layers(name: str, config_type: type = ModelConfig) -> str:
    """A name with "*" in the place of its layer's number, so that those of equal layers are one."""
    for layers, pattern in _layer_patterns(config_type):
        if match := pattern.match(name):
            return f"{layers.name}{name[match.end() :]}"
    return name


@lru_cache(1 << 4)
def _rows_by_name(config_type: type) -> Mapping[str, Row]:
    return {row.name: row for row in rows_of(config_type)}


@lru_cache(1 << 4)
def _layer_patterns(config_type: type) -> tuple[tuple[Layers, re.Pattern[str]], ...]:
    """In each, the number of a layer, if there is one, is the only group."""
    return tuple(
        (each, re.compile(re.escape(each.name).replace(r"\*", f"({_NUMBER})") + r"(?=\.|$)"))
        for each in layers_of(config_type)
    )


def layers_of(config_type: type = ModelConfig) -> tuple[Layers, ...]:
    """Kinds of layers, in their order."""
    return tuple(dict.fromkeys(row.layers for row in rows_of(config_type) if row.layers is not None))


# --- PanGu-alpha. Initial values are those of the 2021 release.

BLOCKS = Layers("blocks.*", end=-1)
QUERY_LAYER = Layers("query_layer", first=-1)  # the last layer, which asks with the next position
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
    """Weight [O, I] and bias [O]; a column-parallel linear is cut over its outputs, a row-parallel not."""
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
