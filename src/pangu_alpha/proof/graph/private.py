"""Every private name of MindSpore that the proof uses; such names may change with any version.

No other module of the proof may use one. Public names are used directly: `Cell.compile` compiles without
running, `Cell.parameter_layout_dict` shows how each parameter is sliced.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindspore import nn


@dataclass(frozen=True)
class PrivateName:
    """A name that may disappear in any version of MindSpore.

    Args:
        module: The module from which it is imported.
        path: The attributes that lead from the module to it.
        seen: Versions of MindSpore in which it works.
        instead: The public alternative and why it is not enough, or what would make the name unnecessary.
    """

    module: str
    path: str
    seen: tuple[str, ...]
    use: str
    instead: str

    @property
    def name(self) -> str:
        """Its full name."""
        return f"{self.module}.{self.path}"

    def find(self) -> Any:
        """Returns the object of this name in the installed MindSpore.

        Raises:
            ValueError: If the installed version has no such name.
        """
        try:
            return reduce(getattr, self.path.split("."), import_module(self.module))
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"{self.name}: not in the installed MindSpore {_version()}; seen in {', '.join(self.seen)}, "
                f"to {self.use}; install one of these, or find what took its place. {self.instead}"
            ) from error


_GRAPH = PrivateName(
    "mindspore.common.api",
    "_cell_graph_executor._get_func_graph_proto",
    ("2.9.0",),
    "read the partitioned graph of a compiled cell",
    "mindspore.export(..., file_format='MINDIR') gives the same graph, but with every parameter's data in "
    "the file, which a large model has not and should not have; an export of the graph alone would do.",
)
_STRATEGY = PrivateName(
    "mindspore.common.api",
    "_cell_graph_executor._get_shard_strategy",
    ("2.9.0",),
    "read the strategy of every operator of a compiled cell",
    "AutoParallel.save_operator_strategy_file writes only what sharding_propagation chose, and "
    "save_param_strategy_file only operators with parameters.",
)
_PHASE = PrivateName(
    "mindspore.nn",
    "Cell.compile_phase",
    ("2.9.0",),
    "name the compiled graph of a cell",
    "It has no underscore but no documentation either; compile() could return the name.",
)
_CHECK_HCCL = PrivateName(
    "mindspore.communication",
    "GlobalComm.CHECK_ENVS",
    ("2.9.0",),
    "let init() pass without CANN's Python package hccl, which is imported only to log its version",
    "The class is public, this field of it is not documented; with a real CANN it may stay True.",
)
_PROTOBUF = PrivateName(
    "mindspore.train",
    "mind_ir_pb2",
    ("2.9.0",),
    "read and edit MINDIR files",
    "mindspore.load gives a graph to run, not to look into; the published mind_ir.proto would do.",
)
NAMES = (_GRAPH, _STRATEGY, _PHASE, _CHECK_HCCL, _PROTOBUF)


def mindir_protobuf() -> Any:
    """The protobuf module of MINDIR files."""
    import_module(f"{_PROTOBUF.module}.{_PROTOBUF.path}")
    return _PROTOBUF.find()


def allow_missing_hccl() -> None:
    """Lets mindspore.communication.init() pass without CANN's Python package."""
    _CHECK_HCCL.find()
    import_module(_CHECK_HCCL.module).GlobalComm.CHECK_ENVS = False


def graph_of(cell: nn.Cell) -> bytes:
    """The MINDIR, without the parameters' data, of a cell that was last compiled by cell.compile(...)."""
    return _GRAPH.find()(cell, cell.compile_phase, "mind_ir")


def strategies_of(cell: nn.Cell) -> dict[str, list[list[int]]]:
    """Strategy of every operator, by scope, of a cell that was compiled by cell.compile(...)."""
    return _STRATEGY.find()(cell)


def _version() -> str:
    return import_module("mindspore").__version__
