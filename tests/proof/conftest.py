"""Runs a cell's graph as a replay runs it: exported, rewritten for CPU, loaded again; one process."""

from __future__ import annotations

import pytest

from pangu_alpha.proof.graph import mindir
from pangu_alpha.proof.graph.inline import inline
from pangu_alpha.proof.graph.rewrite import RewriteOptions, rewrite

_OPTIONS = RewriteOptions()


@pytest.fixture
def rewritten(cpu, tmp_path):
    """Gives a function of (cell, inputs, rank, options) that gives the outputs as NumPy arrays."""
    import mindspore as ms
    from mindspore import Tensor, nn

    def call(cell, *inputs, rank=0, options=_OPTIONS):
        source, target = tmp_path / "ascend.mindir", tmp_path / "cpu.mindir"
        ms.export(cell, *inputs, file_name=str(source), file_format="MINDIR")
        content, _ = rewrite(inline(mindir.read(source)), rank, options)
        target.write_bytes(content)
        outputs = nn.GraphCell(ms.load(str(target)))(*inputs)
        return [each.asnumpy() for each in ([outputs] if isinstance(outputs, Tensor) else outputs)]

    return call
