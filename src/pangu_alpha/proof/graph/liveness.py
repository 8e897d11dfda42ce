"""What a rank's graph keeps for its backward pass: bytes of a micro-batch by layer, and the peak in a step.

A tensor is alive from the node that makes it to the last one that reads it, in the graph's order. Kept are
the tensors that the forward pass makes and the backward pass reads: activations, which depend on the batch,
and copies of weights. A reshape and the like take no memory of their own. The device's workspaces, how it
packs buffers, and the order in which its streams run are not in the graph.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from pangu_alpha.network.parameters import layers_expression
from pangu_alpha.proof.graph import mindir
from pangu_alpha.proof.graph.inline import inline

_VIEWS = ("Reshape", "ExpandDims", "Squeeze", "Depend", "Load")  # share the memory of their first input
_NOTHING = ("Constant", "UpdateState")
# MindSpore's scopes also contain the type of a list of cells: blocks-CellList/3-Block
_LAYER = re.compile(r"\b(" + layers_expression("[0-9]+").replace(r"\.", "-CellList/") + ")-")
_LOSS = "cross_entropy-"
_MICRO = re.compile(r"@\d+$")  # the suffix that inlining adds to names


@dataclass(frozen=True)
class Tensor:
    """A tensor that the forward pass makes and the backward pass reads.

    Args:
        name: Name of the node that makes it, with the number of its output if it has several.
        operator: Type of that node.
        part: "layers", "loss" or "ends"; "copies" for a weight that was cast or gathered for products.
        layer: Name of the layer to which the tensor belongs, otherwise "".
        made: Index of its node in the graph's order.
        read: Index of the last node that reads it.
    """

    name: str
    operator: str
    part: str
    layer: str
    bytes: int
    made: int
    read: int


@dataclass(frozen=True)
class KeptBytes:
    """Bytes that a rank keeps for the backward pass: "activations", "loss" and "copies" of weights.

    Args:
        micro_batch: Bytes of one micro-batch, by these names.
        peak: Most bytes at one time, by these names.
        layers: Bytes of activations of one micro-batch, by layer.
    """

    micro_batch: Mapping[str, float]
    peak: Mapping[str, int]
    layers: Mapping[str, float]


@dataclass(frozen=True)
class Kept:
    """The tensors that a rank keeps.

    Args:
        tensors: All tensors that are kept at some time.
    """

    micro_batches: int
    tensors: tuple[Tensor, ...]

    def bytes(self) -> KeptBytes:
        """The sizes of the kept tensors."""
        groups = {"activations": ("layers", "ends"), "loss": ("loss",), "copies": ("copies",)}
        return KeptBytes(
            micro_batch={name: self.micro_batch(*parts) for name, parts in groups.items()},
            peak={name: self.peak(*parts) for name, parts in groups.items()},
            layers=self.by_layer(),
        )

    def of(self, *parts: str) -> tuple[Tensor, ...]:
        """The tensors of some parts."""
        return tuple(each for each in self.tensors if each.part in parts)

    def micro_batch(self, *parts: str) -> float:
        """Bytes of one micro-batch in some parts."""
        return sum(each.bytes for each in self.of(*parts)) / self.micro_batches

    def by_layer(self) -> dict[str, float]:
        """Bytes of one micro-batch, by layer."""
        found: defaultdict[str, float] = defaultdict(float)
        for each in self.of("layers"):
            found[each.layer] += each.bytes / self.micro_batches
        return dict(found)

    def peak(self, *parts: str) -> int:
        """Most bytes of some parts at one time, in the graph's order."""
        return peak(self.of(*parts))


def peak(tensors: Iterable[Tensor]) -> int:
    """Most bytes that are alive at one time."""
    changes: Counter[int] = Counter()
    for each in tensors:
        changes[each.made] += each.bytes
        changes[each.read + 1] -= each.bytes
    alive = most = 0
    for place in sorted(changes):
        alive += changes[place]
        most = max(most, alive)
    return most


def kept(model: mindir.Model, micro_batches: int, whole: mindir.Model | None = None) -> Kept:
    """Finds what a rank's graph keeps.

    Args:
        model: The graph as the partitioner left it.
        whole: The same graph as one function, if the caller has it; it takes long to make.
    """
    return Kept(micro_batches, tuple(_Graph(model, whole or inline(model)).tensors()))


class _Graph:
    """A rank's graph as one function: what its nodes view, make and read."""

    def __init__(self, model: mindir.Model, whole: mindir.Model) -> None:
        self._closures = {n.inputs[0] for f in model.functions for n in f.nodes if n.type == "Partial"}
        self._owners = {node.name: f.name for f in model.functions for node in f.nodes}
        self.function = whole.functions[0]
        self.parameters = {each.name for each in self.function.proto.parameter}
        self.inputs = {each.name for each in self.function.proto.input} - self.parameters
        self.views: dict[str, str] = {}
        self.tensors_by_name: dict[str, mindir.Tensor] = {}
        self.made: dict[str, int] = {}
        self.readers: dict[str, list[int]] = defaultdict(list)
        self.of_batch = set(self.inputs)
        for place, node in enumerate(self.function.nodes):
            self._add(place, node)

    def _add(self, place: int, node: mindir.Node) -> None:
        if node.type in _NOTHING:
            return
        if node.type == "TupleGetItem":
            self._take(node)
        elif node.type in _VIEWS:
            self.views[node.name] = self.root(node.inputs[0])
        else:
            self.made[node.name] = place
            sources = [self.root(name) for name in node.inputs]
            received = node.type == "Receive" and mindir.phase_of(node) != "parameter"
            if received or any(_node_of(source) in self.of_batch for source in sources):
                self.of_batch.add(node.name)
            for source in sources:
                self.readers[source].append(place)
            if (tensor := self.function.tensors.get(node.name)) is not None:
                self.tensors_by_name[node.name] = tensor

    def _take(self, node: mindir.Node) -> None:
        """Adds a node that takes one of several outputs."""
        source, index = self.root(node.inputs[0]), self._constant(node.inputs[1])
        maker = self.function.by_name.get(source)
        if maker is not None and maker.type == "MakeTuple":
            self.views[node.name] = self.root(maker.inputs[index])
            return
        name = self.views[node.name] = f"{source}[{index}]"
        if (tensor := self.function.tensors.get(node.name)) is not None:
            self.tensors_by_name[name] = tensor

    def _constant(self, name: str) -> int:
        proto = self.function.by_name[name].proto
        return next(mindir.value(each) for each in proto.attribute if each.name == "value")

    def root(self, name: str) -> str:
        """The tensor whose memory a name refers to."""
        return self.views.get(name, name)

    @cached_property
    def _backward(self) -> list[bool]:
        """For each node, whether it belongs to the backward pass.

        Such nodes come from a closure that the forward pass returns, or from differentiation.
        """
        return [
            self._owners.get(_MICRO.sub("", node.name)) in self._closures
            or node.scope.startswith("Gradients")
            for node in self.function.nodes
        ]

    def tensors(self) -> Iterator[Tensor]:
        """Yields the tensors that are kept."""
        for name, tensor in self.tensors_by_name.items():
            maker = _node_of(name)
            place = self.made.get(maker)
            readers = self.readers[name]
            if place is None or self._backward[place] or not any(self._backward[each] for each in readers):
                continue
            node = self.function.nodes[place]
            layer = _LAYER.search(node.scope)
            # The AllGather in this scope gathers the rows of the logits and is no part of the loss.
            loss = _LOSS in node.scope and node.type != "AllGather"
            part = "layers" if layer else "loss" if loss else "ends"
            yield Tensor(
                name=name,
                operator=node.type,
                part=part if maker in self.of_batch else "copies",
                layer=layer[1].replace("-CellList/", ".") if layer and maker in self.of_batch else "",
                bytes=tensor.bytes,
                made=place,
                read=max(readers),
            )


def _node_of(name: str) -> str:
    """The node that makes a tensor."""
    return name.partition("[")[0]
