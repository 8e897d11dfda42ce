"""Reads the pickle in a file of torch.save without torch and without running anything that it names.

An Unpickler that knows a fixed list of names makes inert objects for them. Time and memory are bounded by a
small multiple of the pickle's size.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.files.shown import shown

# torch's storage classes -> numpy's name of the type, or "bfloat16"
_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
    "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
_REBUILDERS = ("_rebuild_tensor", "_rebuild_tensor_v2")
_NUMPY = ("_reconstruct", "scalar")
# What else lies in such files beside the weights: arguments of the program, types, states of generators.
_INERT = {
    ("argparse", "Namespace"), ("torch", "Size"), ("torch", "device"), ("_codecs", "encode"),
    ("numpy", "dtype"), ("numpy", "ndarray"),
    *(("torch", name) for name in ("float16", "float32", "float64", "bfloat16", "int32", "int64", "uint8")),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in _NUMPY),
}  # fmt: skip
# Raised by pickle's Python interpreter for bytes that are not a pickle.
PICKLE_ERRORS = (
    pickle.UnpicklingError, LookupError, AttributeError, TypeError, ValueError, EOFError, AssertionError,
    struct.error, ArithmeticError, NameError, MemoryError, RecursionError,
)  # fmt: skip
# Whole numbers below it have different hashes; equal ones would turn a mapping into a linear search.
_MOST_KEY = 1 << 60
_MOST_ARGUMENTS = 1 << 20  # of all calls; one tuple may be passed to as many calls as there are bytes


class _Mapping(dict):
    """Replaces OrderedDict.

    Cannot copy another mapping and has no attributes, so that its size is bounded by the pickle's.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        """Ignores a module's _metadata."""


class Inert:
    """Replaces an object of the file that is not a tensor; keeps its arguments and does nothing."""

    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any, **_: Any) -> Inert:
        made = super().__new__(cls)
        made.arguments, made.state = arguments, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def extend(self, _: Any) -> None:
        """Ignores items that pickle appends to it as to a list."""


# Named tuples, because a pickle can set attributes of any object that has a __dict__.
class Storage(NamedTuple):
    """The numbers of one or several tensors.

    Args:
        key: Name of the zip's entry that holds them.
        dtype: numpy's name of their type, or "bfloat16".
    """

    key: str
    dtype: str


class _StorageType(NamedTuple):
    dtype: str


# The one in Python: damaged bytes cannot reach memory through it. Its stack and methods have no stated types.
_PythonUnpickler: Any = pickle._Unpickler


class Unpickler(_PythonUnpickler):
    """Makes plain values, tensors and Inert: `find_class` is its only way to anything else.

    Args:
        data: The pickle.
        tensor: Makes a tensor of a storage, the number of its first element, shape and strides; all four are
            whatever the pickle holds.
        refuse: Makes the error for a pickle with a name that is not on the list, from a sentence.
    """

    def __init__(
        self,
        data: bytes,
        tensor: Callable[[Any, Any, Any, Any], Any],
        refuse: Callable[[str], CheckpointError],
    ) -> None:
        super().__init__(io.BytesIO(data))
        self._tensor, self._refuse = tensor, refuse
        self._arguments = 0  # passed to calls so far
        self._inert: dict[str, type[Inert]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Mapping
        if module == "torch" and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        if module == "torch._utils" and name in _REBUILDERS:
            return self._rebuild
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if (module, name) in _INERT:
            if name not in self._inert:
                self._inert[name] = type(name, (Inert,), {})
            return self._inert[name]
        raise self._refuse(
            f"its pickle names {shown(module, 80)}.{shown(name, 80)}, which is not needed for weights; "
            "nothing was run; load it where you trust it and save the weights alone: "
            "torch.save(state_dict, NEW)"
        )

    def persistent_load(self, pid: Any) -> Storage:
        if not isinstance(pid, tuple) or not 3 <= len(pid) <= 8:
            raise pickle.UnpicklingError("refers to something that is no storage of torch")
        kind, storage, key, *_ = pid
        if kind != "storage" or not isinstance(storage, _StorageType) or not isinstance(key, str):
            raise pickle.UnpicklingError("refers to something that is no storage of torch")
        return Storage(key, storage.dtype)

    def _rebuild(self, storage: Any, first: Any, shape: Any, strides: Any, *_: Any) -> Any:
        return self._tensor(storage, first, shape, strides)

    def _refuse_keys(self, keys: list[Any]) -> None:
        # The hash of a tuple visits all it contains: nested tuples could take for ever or overflow the stack.
        if any(isinstance(key, tuple) for key in keys):
            raise pickle.UnpicklingError("a key that is a tuple")
        if any(isinstance(key, int) and abs(key) >= _MOST_KEY for key in keys):
            raise pickle.UnpicklingError("a key that is a number beyond all counting")

    def load_setitem(self) -> None:
        self._refuse_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        self._refuse_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        self._refuse_keys(self.stack[::2])
        super().load_dict()

    def _count_arguments(self, given: Any) -> None:
        self._arguments += len(given)
        if self._arguments > _MOST_ARGUMENTS:
            raise pickle.UnpicklingError("calls of more arguments than any weights need")

    def load_reduce(self) -> None:
        self._count_arguments(self.stack[-1])
        super().load_reduce()

    def load_newobj(self) -> None:
        self._count_arguments(self.stack[-1])
        super().load_newobj()

    def load_newobj_ex(self) -> None:
        self._count_arguments(self.stack[-1])
        self._count_arguments(self.stack[-2])
        super().load_newobj_ex()

    def load_put(self) -> None:
        # By a decimal number; the memo is a mapping, too.
        number = int(self.readline())
        if not 0 <= number < _MOST_KEY:
            raise pickle.UnpicklingError("a number of a memo beyond all counting")
        self.memo[number] = self.stack[-1]

    def load_build(self) -> None:
        if not isinstance(self.stack[-2], Inert | _Mapping):
            raise pickle.UnpicklingError("a state for something that takes none")
        super().load_build()

    def load_other(self) -> None:
        raise pickle.UnpicklingError("a set or a bytearray, which are no weights")

    # By opcode, as pickle finds its methods. Python 3.11 makes a bytearray of any length before it reads it.
    dispatch = _PythonUnpickler.dispatch | {
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.BUILD[0]: load_build,
        pickle.PUT[0]: load_put,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.BYTEARRAY8[0]: load_other,
        pickle.EMPTY_SET[0]: load_other,
        pickle.FROZENSET[0]: load_other,
    }
