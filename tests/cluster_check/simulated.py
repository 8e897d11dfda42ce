"""Runs what checks measure on NPUs in a process that only simulates one: every graph that they call compiles.

python simulated.py CHIP RANK SIZE FOLDER CHECK MEASUREMENT...    (in an environment of proof.dry_run.cann)

A graph's result is ones of the types and shapes that the compiled graph states. So the graphs are those of
the checks' own code, and what the checks make of the results means nothing. Prints a line for each graph.
"""

import sys

sys.path.pop(0)  # these tests' folder

import functools
import importlib
import os
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.communication import init

from pangu_alpha.cluster_check.cases import operators as cases
from pangu_alpha.cluster_check.measure import links, operators, overlap, speed
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.setup import Setup
from pangu_alpha.cluster_check.table import named
from pangu_alpha.config.families import FAMILIES
from pangu_alpha.model import chip as chips
from pangu_alpha.model.operators.ascend import FloatStatus
from pangu_alpha.parallel.context import simulate_ascend
from pangu_alpha.parallel.world import World
from pangu_alpha.proof.graph import private

FIXTURES = Path(__file__).parents[1] / "fixtures"
EAGER = (ops.Add, ops.MatMul, ops.AllReduce, ops.AllGather, ops.ReduceScatter)  # called outside cells
TYPES = {"FLOAT": ms.float32, "FLOAT16": ms.float16, "BFLOAT16": ms.bfloat16, "BOOL": ms.bool_,
         "UINT8": ms.uint8, "INT32": ms.int32, "INT64": ms.int64}  # fmt: skip
_results, _alone = {}, {}


def result_of(info, types):
    """Ones as a compiled graph's output describes them; MINDIR's description is a protobuf."""
    if info.values:
        return tuple(result_of(each, types) for each in info.values)
    (tensor,) = info.tensors
    return Tensor(np.ones(tuple(tensor.dims), np.float32), types[tensor.data_type])


def compile_and_run(cell, *inputs, **named_inputs):
    """Stands for Cell.compile_and_run, which all calls of cells come to in graph mode."""
    cell.compile(*inputs, **named_inputs)
    key = (id(cell), cell.compile_phase)
    if key not in _results:
        protobuf = private.mindir_protobuf()
        model = protobuf.ModelProto()
        model.ParseFromString(private.graph_of(cell))
        kinds = protobuf.TensorProto
        types = {getattr(kinds, name): each for name, each in TYPES.items()}
        found = [one_output(each, types) for each in model.graph.output]
        _results[key] = (found[0] if len(found) == 1 else tuple(found), cell)
        print(f"compiled {type(cell).__name__}", flush=True)
    return _results[key][0]


def one_output(output, types):
    if output.HasField("attr_info"):
        return result_of(output.attr_info, types)
    (tensor,) = output.tensor
    return Tensor(np.ones(tuple(tensor.dims), np.float32), types[tensor.data_type])


class Alone(nn.Cell):
    """An operator that a check calls outside a cell, as a graph."""

    def __init__(self, operator):
        super().__init__(auto_prefix=False)
        self.operator = operator

    def construct(self, *inputs):
        return self.operator(*inputs)


def astype(tensor, dtype, copy=True):
    """A conversion on the host, of what need not have a value."""
    values = np.ones(tensor.shape, np.float32) if tensor.dtype == ms.bfloat16 else tensor.asnumpy()
    return Tensor(values, dtype)


def simulate(chip):
    nn.Cell.compile_and_run = compile_and_run
    Tensor.astype = astype
    for kind in EAGER:
        kind.__call__ = call_alone
    ms.runtime.synchronize = lambda: None
    chips.soc_version = lambda: FAMILIES[chip].soc_version
    FloatStatus.clear = staticmethod(lambda: None)
    World.gather = lambda world, array: np.repeat(array[None], world.size, 0)
    # What costs time or memory, and makes no graph.
    operators.arrays_of = functools.lru_cache(len(cases.CASES))(cases.arrays_of)
    operators._slopes = lambda gradients: ()
    operators.sampled = lambda array: []
    speed.PRODUCTS, speed.COPIES = {"Ascend": (512, 1024)}, {"Ascend": (1 << 20,)}
    links.SIZES, overlap.SUM = {"Ascend": (1 << 10, 1 << 20)}, {"Ascend": 1 << 20}
    overlap.PRODUCT = {"Ascend": 512}


def call_alone(operator, *inputs):
    if operator not in _alone:
        _alone[operator] = Alone(operator)
    return _alone[operator](*inputs)


def plant(name):
    """An activation that the compiler refuses."""
    from pangu_alpha.model.operators import ascend

    class Broken(nn.Cell):
        def construct(self, x):
            return ops.MatMul()(x, x[:1, :1])

    assert name == "operator"
    ascend.Gelu.construct = Broken.construct


if __name__ == "__main__":
    chip, rank, size, folder, check, *measurements = sys.argv[1:]
    simulate_ascend()
    private.allow_missing_hccl()
    init()
    simulate(chip)
    if os.environ.get("PLANTED"):
        plant(os.environ["PLANTED"])
    rank, size, folder = int(rank), int(size), Path(folder)
    setup = Setup("Ascend", (tuple(range(size)),), (tuple(range(size)),), oracle=str(FIXTURES))
    (found,) = named((check,))
    for measurement in measurements:
        own = folder / measurement
        own.mkdir(parents=True, exist_ok=True)
        world = World(rank, size) if size > 1 and measurement != "one" else None
        importlib.import_module(found.module).measure(
            Place(measurement, "Ascend", rank, folder, own, setup, world)
        )
        print(f"measured {check}, {measurement}", flush=True)
