from __future__ import annotations

import subprocess
import sys

import pytest

from pangu_alpha.proof.dry_run import cann
from pangu_alpha.proof.graph import mindir, private

# Rank 0 of 4: y = x w, loss = sum(y); x [4, 8], w [8, 16]; sliced over 2 x 2 devices, or 2 stages of 2.
COMPILE = """
import sys
from pathlib import Path
import mindspore as ms
from mindspore import Parameter, Tensor, lazy_inline, nn, ops
from mindspore.common.initializer import initializer
from mindspore.communication import init
from pangu_alpha.proof.graph import private

ms.set_context(mode=ms.GRAPH_MODE, device_target="Ascend")
private.allow_missing_hccl()
init()

class Layer(nn.Cell):
    def __init__(self, inside, outside, dp):
        super().__init__()
        self.weight = Parameter(initializer("normal", (inside, outside), ms.float32))
        self.matmul = ops.MatMul().shard(((dp, 2), (2, 1)))
    def construct(self, x):
        return self.matmul(x, self.weight)

class Loss(nn.Cell):
    def __init__(self, dp):
        super().__init__()
        self.layer = Layer(8, 16, dp)
        self.sum = ops.ReduceSum().shard(((dp, 1),))
    def construct(self, x):
        return self.sum(self.layer(x))

class Stages(nn.Cell):
    @lazy_inline
    def __init__(self):
        super().__init__()
        self.first = Layer(8, 16, 1)
        self.last = Loss(1)
        self.last.layer = Layer(16, 8, 1)
        self.first.pipeline_stage, self.last.pipeline_stage = 0, 1
    def construct(self, x):
        return self.last(self.first(x))

class Branches(nn.Cell):
    def __init__(self):
        super().__init__()
        self.yes, self.no, self.sum = Layer(8, 16, 2), Layer(8, 16, 2), ops.ReduceSum().shard(((1, 1),))
    def construct(self, x):
        if self.sum(x) > 0:
            return self.yes(x)
        return self.no(x)

def compile_(name, network, train=True, **context):
    ms.reset_auto_parallel_context()
    ms.set_auto_parallel_context(
        parallel_mode="semi_auto_parallel", device_num=4, global_rank=0, full_batch=True, **context)
    cell = network()
    step = nn.TrainOneStepCell(cell, nn.SGD(cell.trainable_params())) if train else cell
    step.set_train(train)
    step.compile(Tensor(shape=(4, 8), dtype=ms.float32, init=initializer("ones", (4, 8)).init).init_data())
    Path(sys.argv[1], name + ".mindir").write_bytes(private.graph_of(step))
    return step

step = compile_("grid", lambda: Loss(2))
strategies = private.strategies_of(step)
assert [[2, 2], [2, 1]] in strategies.values(), strategies
layout = step.parameter_layout_dict["layer.weight"]
assert list(layout[2]) == [4, 16], layout
compile_("sharded", lambda: Loss(2), enable_parallel_optimizer=True,
         parallel_optimizer_config={"parallel_optimizer_threshold": 0})
compile_("stages", lambda: nn.PipelineCell(Stages(), 2), pipeline_stages=2)
compile_("branches", Branches, train=False)
for each in private.NAMES:
    each.find()
print("names found")
"""


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """Graphs of rank 0 by name, compiled once."""
    folder = tmp_path_factory.mktemp("graphs")
    (folder / "compile.py").write_text(COMPILE, encoding="utf-8")
    environment = cann.dry_run_environment(0, 4, cache=folder)
    command = [sys.executable, str(folder / "compile.py"), str(folder)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "names found" in done.stdout
    return {path.stem: mindir.read(path) for path in folder.glob("*.mindir")}


def found(model, phase):
    return [each for each in mindir.collectives(model) if each.phase == phase]


def test_partial_products_are_summed_over_the_tensor_axis(graphs):
    product, _ = found(graphs["grid"], "forward")
    assert (product.operation, product.reduction, product.ranks, product.peer) == (
        "AllReduce",
        "sum",
        (0, 1),
        None,
    )
    assert product.payload == mindir.Tensor((2, 16), "float32")
    assert (product.bytes, product.wire_bytes, product.step_bytes) == (128, 128.0, 128.0)
    assert product.calls == 1


def test_gradients_are_summed_over_the_data_axis_under_the_parameters_name(graphs):
    (gradient,) = found(graphs["grid"], "gradient")
    assert (gradient.operation, gradient.ranks, gradient.parameter) == ("AllReduce", (0, 2), "layer.weight")
    assert gradient.payload.shape == (4, 16)


def test_optimizer_parallel_gathers_weights_and_scatters_gradients(graphs):
    (gather,), (scatter,) = found(graphs["sharded"], "parameter"), found(graphs["sharded"], "gradient")
    assert (gather.operation, scatter.operation) == ("AllGather", "ReduceScatter")
    assert gather.ranks == scatter.ranks == (0, 2)
    assert gather.payload == scatter.payload == mindir.Tensor((4, 16), "float32")
    assert gather.wire_bytes == scatter.wire_bytes == 4 * 16 * 4 / 2
    assert graphs["sharded"].parameters["layer.weight"] == mindir.Tensor((2, 16), "float32")


def test_a_function_called_for_every_micro_batch_is_counted_so_often(graphs):
    model = graphs["stages"]
    assert list(mindir.calls(model).values()).count(2) == 2  # forward and backward pass
    (product,) = found(model, "forward")[-1:]
    assert (product.operation, product.calls, product.payload.shape) == ("AllReduce", 2, (2, 16))
    assert product.function != model.functions[0].name
    assert product.step_bytes == 2 * product.bytes


def test_sends_and_receives_name_their_peer_and_micro_batch(graphs):
    point_to_point = [each for each in mindir.collectives(graphs["stages"]) if each.peer is not None]
    facts = [(each.operation, each.phase, each.peer, each.micro_batch) for each in point_to_point]
    assert sorted(facts) == [
        ("Receive", "backward", 2, 0),
        ("Receive", "backward", 2, 1),
        ("Send", "forward", 2, 0),
        ("Send", "forward", 2, 1),
    ]
    assert {each.payload.shape for each in point_to_point} == {(2, 16)}
    assert {each.operation: each.wire_bytes for each in point_to_point} == {"Send": 128, "Receive": 0}


def test_both_branches_of_a_condition_are_counted(graphs):
    counts = mindir.calls(graphs["branches"])
    assert list(counts.values()) == [1, 1, 1]
    assert len([each for each in found(graphs["branches"], "forward") if each.operation == "AllReduce"]) >= 2


def test_summary_counts_nodes_and_lists_slices(graphs):
    summary = mindir.summary(graphs["grid"])
    assert summary.nodes == len(graphs["grid"].proto.graph.node) == sum(summary.operators.values())
    assert summary.operators["MatMul"] == 2
    assert summary.parameters["layer.weight"] == mindir.Tensor((4, 16), "float32")


def test_shapes_are_known_of_nodes_inputs_and_parameters(graphs):
    model = graphs["grid"]
    main = model.functions[0]
    product = next(node for node in main.nodes if node.type == "MatMul" and node.scope.startswith("Default"))
    assert model.tensor(main, product.name) == mindir.Tensor((2, 16), "float32")
    assert model.tensor(main, product.inputs[0]) == mindir.Tensor((2, 4), "float32")
    assert model.tensor(main, product.inputs[1]) == mindir.Tensor((4, 16), "float32")
    assert product.attribute("transpose_b") in (False, None)
    assert main.by_name[product.name] is product


def copy(model):
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    return proto


def test_an_unknown_communication_operator_is_refused(graphs):
    proto = copy(graphs["grid"])
    for primitive in proto.primitives:
        if primitive.op_type == "AllReduce":
            primitive.op_type = "AllMystery"
    with pytest.raises(ValueError, match="unknown communication operator AllMystery"):
        mindir.collectives(mindir.wrap(proto))


def test_a_loop_is_refused(graphs):
    proto = copy(graphs["grid"])
    call = proto.graph.node.add(name="again", op_type=f"REF::{proto.graph.name}")
    call.output.append("again")
    with pytest.raises(ValueError, match="calls itself"):
        mindir.calls(mindir.wrap(proto))


@pytest.mark.parametrize(("content", "words"), [(b"not a graph", "no MINDIR"), (b"", "without a graph")])
def test_what_is_no_graph_is_refused(content, words, tmp_path):
    path = tmp_path / "x.mindir"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.mindir: .*{words}"):
        mindir.read(path)


@pytest.mark.parametrize(
    ("dtype", "size"), [("bool", 6), ("float16", 12), ("bfloat16", 12), ("int32", 24), ("float64", 48)]
)
def test_bytes_of_a_tensor(dtype, size):
    assert mindir.Tensor((2, 3), dtype).bytes == size
    assert mindir.Tensor((), dtype).bytes == size / 6


def test_a_private_name_that_went_is_named_with_the_version_it_was_seen_in():
    gone = private.PrivateName(
        "mindspore.nn", "Cell.gone", ("2.9.0",), "show this", "Nothing took its place."
    )
    with pytest.raises(ValueError, match=r"mindspore\.nn\.Cell\.gone.*2\.9\.0.*to show this.*Nothing took"):
        gone.find()
