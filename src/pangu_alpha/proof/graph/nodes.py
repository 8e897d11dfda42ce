"""Makes new nodes for a rank's graph: operators with CPU kernels of MindSpore, and constants.

Knows the protobuf of MINDIR, not what the nodes are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pangu_alpha.proof.graph import mindir, private

# Numbers of types in the second input of MindSpore 2.9's Cast.
TYPE_IDS = {"bool": 30, "int32": 34, "uint8": 37, "float16": 42, "float32": 43}

Content = np.ndarray | tuple[int, ...] | int | bool


class NodeBuilder:
    """Collects the nodes of a new graph, in an order in which they can run.

    Args:
        model: The graph in one function; new primitives are added to its protobuf.
        rank: The rank whose graph it is.
        prefix: Start of new names; it must differ from that of an earlier builder for the same graph.
    """

    def __init__(self, model: mindir.Model, rank: int, prefix: str = "replay") -> None:
        self.model = model
        self.function = model.functions[0]
        self.rank = rank
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.types = _data_types(model.proto)
        self.replaced: dict[str, str] = {}
        self._made: dict[str, mindir.Tensor] = {}

    def keep(self, node: mindir.Node) -> None:
        """Appends a node of the graph; inputs that were replaced are renamed in its protobuf."""
        for i, name in enumerate(node.proto.input):
            node.proto.input[i] = self.now(name)
        self.nodes.append(node.proto)

    def now(self, name: str) -> str:
        """The node that replaces the graph's node of a name, or the name itself."""
        return self.replaced.get(name, name)

    def tensor(self, name: str) -> mindir.Tensor:
        """Shape and type of a node's output, which must be one tensor."""
        found = self._made.get(name) or self.model.tensor(self.function, name)
        assert found is not None, f"{name}: the compiler left no shape"
        return found

    def value(self, name: str) -> Any:
        """A constant of the graph as a Python value."""
        node = self.function.by_name[name]
        assert node.type == "Constant", f"{name}: {node.type} instead of a constant"
        return next((mindir.value(each) for each in node.proto.attribute if each.name == "value"), None)

    def add(
        self,
        operator: str,
        inputs: Sequence[str],
        tensor: mindir.Tensor | None,
        name: str | None = None,
        **attributes: str,
    ) -> str:
        """Appends an operator and returns the name of its node.

        Args:
            inputs: Names of the nodes that it reads, constants included.
            tensor: Shape and type of its output; None if that is no single tensor.
            name: Name of the node; by default a new one.
        """
        count = len(self.nodes)
        primitive = self.model.proto.primitives.add()
        primitive.name, primitive.op_type = f"{operator}:{self.prefix}{count}", operator
        primitive.prim_type = primitive.PRIMITIVE
        for key, text in attributes.items():
            primitive.attribute.add(name=key, s=text.encode(), type=_attribute(primitive, "STRING"))
        node = self._node(name or f"{self.prefix}_{operator}_{count}", f"REF::{primitive.name}")
        node.input.extend(inputs)
        node.domain = "Default"
        if tensor is not None:
            self._made[node.name] = tensor
            shape = node.attribute.add(name="shape", type=_attribute(node, "TENSORS"))
            shape.tensors.add(dims=tensor.shape, data_type=self.types[tensor.dtype])
        return node.name

    def cast(self, x: str, dtype: str, name: str | None = None) -> str:
        """x in another type; x itself if it has that type and needs no name."""
        given = self.tensor(x)
        if given.dtype == dtype and name is None:
            return x
        tensor = mindir.Tensor(given.shape, dtype)
        return self.add("Cast", [x, self.constant(TYPE_IDS[dtype])], tensor, name)

    def number(self, value: float, dtype: str = "float32") -> str:
        """Appends a constant scalar tensor and returns its name."""
        return self.constant(np.array(value, dtype))

    def constant(self, content: Content) -> str:
        """Appends a constant and returns its name."""
        node = self._node(f"{self.prefix}_constant_{len(self.nodes)}", "Constant")
        entry = node.attribute.add(name="value")
        if isinstance(content, np.ndarray):
            entry.type = _attribute(node, "TENSORS")
            kind = self.types[content.dtype.name]
            entry.tensors.add(dims=content.shape, data_type=kind, name="value0", raw_data=content.tobytes())
            self._made[node.name] = mindir.Tensor(content.shape, content.dtype.name)
        elif isinstance(content, tuple):
            entry.type = _attribute(node, "TUPLE")
            for item in content:
                entry.values.add(ints=[item], type=_attribute(node, "INT64"))
        else:
            entry.i = int(content)
            entry.type = _attribute(node, "BOOL" if isinstance(content, bool) else "INT64")
        return node.name

    def _node(self, name: str, kind: str) -> Any:
        node = private.mindir_protobuf().NodeProto(name=name, op_type=kind, output=[name])
        self.nodes.append(node)
        return node


def _attribute(proto: Any, name: str) -> int:
    message = proto.DESCRIPTOR.fields_by_name["attribute"].message_type
    return message.enum_types_by_name["AttributeType"].values_by_name[name].number


def _data_types(proto: Any) -> dict[str, int]:
    """Numbers of the types of a tensor's elements, by MindSpore's names."""
    tensor = proto.DESCRIPTOR.fields_by_name["graph"].message_type.fields_by_name["parameter"].message_type
    values = tensor.enum_types_by_name["DataType"].values_by_name
    return {"float32" if name == "FLOAT" else name.lower(): value.number for name, value in values.items()}
