"""Converts values in the protobuf of a MINDIR (attributes, shapes, types) to Python."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

_BITS = {"bool": 8, "qint4x2": 8}  # other names contain their number of bits
_NAMES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class Tensor:
    """Shape and type of a value in the graph.

    Args:
        shape: Shape on this rank.
        dtype: MindSpore's name, such as "float16".
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        digits = "".join(filter(str.isdigit, self.dtype))
        return prod(self.shape) * (_BITS.get(self.dtype) or int(digits)) // 8


def attribute(primitive: Any, name: str) -> Any:
    """A primitive's attribute as a Python value; None if it has none of that name."""
    return find(primitive.attribute, name)


def value(proto: Any) -> Any:
    """An AttributeProto as a Python value.

    Outputs:
        int, float, bool, str, None, a tuple of these, or a Tensor for the shape and type of a tensor; a
            string for functions, types and the like.
    """
    kind = kind_of(proto)
    if kind in ("TUPLE", "LIST"):
        return tuple(map(value, proto.values))
    if kind == "TENSORS":
        found = tuple(map(tensor_of, proto.tensors))
        return found[0] if len(found) == 1 else found
    # Elements of a tuple are in the repeated field, single values in the plain one.
    if kind in ("FLOAT", "FLOAT16", "BFLOAT16"):
        return proto.floats[0] if proto.floats else proto.f
    if kind == "DOUBLE":
        return proto.doubles[0] if proto.doubles else proto.d
    if kind == "BOOL":
        return bool(proto.ints[0] if proto.ints else proto.i)
    if "INT" in kind:
        return proto.ints[0] if proto.ints else proto.i
    if kind in ("NONE", "UMONAD", "IOMONAD", "UNDEFINED"):
        return None
    return (proto.strings[0] if proto.strings else proto.s).decode()


def tensor_of(proto: Any) -> Tensor:
    """Shape and type of a TensorProto."""
    word = proto.DESCRIPTOR.enum_types_by_name["DataType"].values_by_number[proto.data_type].name.lower()
    return Tensor(tuple(proto.dims), _NAMES.get(word, word))


def kind_of(proto: Any) -> str:
    """Name of the type of an AttributeProto."""
    return proto.DESCRIPTOR.enum_types_by_name["AttributeType"].values_by_number[proto.type].name


def find(attributes: Any, name: str) -> Any:
    """The value of the attribute of a name among AttributeProtos; None if there is none."""
    return next((value(each) for each in attributes if each.name == name), None)
