"""Compiles a decoder's graphs for Ascend in a process that simulates it, and prints what operators they hold.

It is run as `ascend_graphs.py CHIP` in the environment of a dry run. "flash" is a 910B whose attention is
that for whole sequences.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

import numpy as np
from mindspore import Tensor

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.inference.decoder import Decoder
from pangu_alpha.model.operators import operators_for
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.parallel.context import simulate_ascend
from pangu_alpha.proof.dry_run.stub_calls import counted
from pangu_alpha.proof.graph import mindir, private


class CompilingDecoder(Decoder):
    """Compiles what a decoder would run, and keeps the graphs by name."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.found = {}

    def _run(self, kind, name, *inputs):
        cell = self.cells[kind]
        cell.compile(*(Tensor(each) if isinstance(each, np.ndarray) else each for each in inputs))
        self.found[name] = private.graph_of(cell)
        return Tensor(0)

    _compile = _run


def operators_of(model: mindir.Model) -> dict[str, int]:
    """How often a graph holds each operator, by its name and the type of its output."""
    found: Counter[str] = Counter()
    for function in model.functions:
        for node in function.nodes:
            tensor = function.tensors.get(node.name)
            found[f"{node.type} {tensor.dtype if tensor else ''}".strip()] += 1
    return dict(found)


def main(chip: str) -> None:
    """Prints JSON: for each graph, its operators and the types of its outputs."""
    simulate_ascend()
    config = ModelConfig(192, 64, 2, 4, seq_length=128, dropout=0.0)
    decoding = chip != "flash"
    operators = operators_for(config, "Ascend", decoding, "910B" if chip == "flash" else chip)
    model = PanguAlpha(config, seed=None, operators=operators).set_train(False)
    decoder = CompilingDecoder(model, 9, rows=4, pinned=1)
    decoder.warm_up()
    graphs = {name: operators_of(mindir.read(graph)) for name, graph in decoder.found.items()}
    print(json.dumps({"graphs": graphs, "stubs": counted()}))


if __name__ == "__main__":
    main(sys.argv[1])
