"""A cell that is compiled once and called often."""

from __future__ import annotations

from mindspore import nn


class GraphCell(nn.Cell):
    """A cell whose parameters keep their names, and whose calls write into no cell.

    MindSpore 2.9 writes the name of the compiled graph into every cell of a network before each call, which
    takes 3 ms for a network of 350M parameters. Here it does so only if another graph is called.
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)

    @property
    def compile_phase(self) -> str:
        """Name of the graph that was called last."""
        return self._compile_phase

    @compile_phase.setter
    def compile_phase(self, name: str) -> None:
        if name != self._compile_phase:
            nn.Cell.compile_phase.fset(self, name)
