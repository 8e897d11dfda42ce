"""Inlining and rewriting on graphs made by hand; that the result computes the same is shown by replays."""

from __future__ import annotations

import pytest

from pangu_alpha.proof.checks.order import meetings
from pangu_alpha.proof.graph import mindir, private
from pangu_alpha.proof.graph.inline import inline
from pangu_alpha.proof.graph.rewrite import rewrite

FLOAT, INTEGER = 1, 6  # TensorProto.DataType


class Graph:
    """Builds a MINDIR node by node."""

    def __init__(self):
        self.protobuf = private.mindir_protobuf()
        self.model = self.protobuf.ModelProto()
        kinds = self.protobuf.AttributeProto.AttributeType
        self.kind = {name: kinds.Value(name) for name in ("TENSORS", "STRING", "INT64", "TUPLE")}

    def primitive(self, operator, ranks=None, **attributes):
        proto = self.model.primitives.add(name=f"{operator}:{len(self.model.primitives)}", op_type=operator)
        if ranks is not None:
            attributes["group"] = "g" + "_".join(map(str, ranks))
            entry = proto.attribute.add(name="group_rank_ids", type=self.kind["TUPLE"])
            for rank in ranks:
                entry.values.add(ints=[rank], type=self.kind["INT64"])
        for name, value in attributes.items():
            if isinstance(value, str):
                proto.attribute.add(name=name, s=value.encode(), type=self.kind["STRING"])
            else:
                proto.attribute.add(name=name, i=value, type=self.kind["INT64"])
        return "REF::" + proto.name

    def node(self, graph, name, kind, inputs, shape=None, dtype=FLOAT):
        node = graph.node.add(name=name, op_type=kind, input=inputs, output=[name], domain="Default")
        if shape is not None:
            entry = node.attribute.add(name="shape", type=self.kind["TENSORS"])
            entry.tensors.add(dims=shape, data_type=dtype)

    def constant(self, graph, name, value):
        node = graph.node.add(name=name, op_type="Constant", output=[name])
        node.attribute.add(name="value", i=value, type=self.kind["INT64"])

    def input(self, graph, name, shape, dtype=FLOAT):
        graph.input.add(name=name).tensor.add(dims=shape, data_type=dtype)

    def read(self):
        return mindir.wrap(self.model)


def single(operator, shape, given, ranks=(0, 1), dtype=FLOAT, **attributes):
    """A graph of two collectives of one kind, one after the other."""
    graph = Graph()
    main = graph.model.graph
    main.name = "main"
    graph.input(main, "x", given, dtype)
    kind = graph.primitive(operator, ranks, **attributes)
    graph.node(main, "a", kind, ["x"], shape, dtype)
    graph.node(main, "b", kind, ["x"], shape, dtype)
    graph.node(main, "sum", graph.primitive("Add"), ["a", "b"], shape, dtype)
    main.output.add(name="sum")
    return graph.read()


def rewritten(model, rank=1):
    content, groups = rewrite(model, rank)
    (function,) = mindir.read(content).functions
    return function, groups


def types(function):
    return [node.type for node in function.nodes if node.type != "Constant"]


def closures():
    """main calls forward twice; forward returns its sum and a backward pass that holds its input."""
    graph = Graph()
    main = graph.model.graph
    main.name = "main"
    forward, backward = graph.model.functions.add(name="forward"), graph.model.functions.add(name="backward")
    for function, names in ((main, "x"), (forward, "i"), (backward, "kd")):
        for name in names:
            graph.input(function, f"{function.name}:{name}", (4,))
    reduce = graph.primitive("AllReduce", (0, 1), op="sum")
    get, make = graph.primitive("TupleGetItem"), graph.primitive("MakeTuple")
    graph.constant(main, "zero", 0)
    graph.constant(main, "one", 1)
    for call in "12":
        graph.node(main, f"main:call{call}", "REF::forward", ["main:x"])
        graph.node(main, f"main:y{call}", get, [f"main:call{call}", "zero"], (4,))
        graph.node(main, f"main:f{call}", get, [f"main:call{call}", "one"])
        graph.node(main, f"main:d{call}", f"REF::main:f{call}", [f"main:y{call}"], (4,))
    graph.node(main, "main:sum", graph.primitive("Add"), ["main:d1", "main:d2"], (4,))
    main.output.add(name="main:sum")
    graph.node(forward, "forward:y", reduce, ["forward:i"], (4,))
    graph.node(forward, "forward:partial", graph.primitive("Partial"), ["backward", "forward:i"])
    graph.node(forward, "forward:out", make, ["forward:y", "forward:partial"])
    forward.output.add(name="forward:out")
    graph.node(backward, "backward:out", graph.primitive("Mul"), ["backward:k", "backward:d"], (4,))
    backward.output.add(name="backward:out")
    return graph.read()


def test_inlining_runs_a_function_at_each_of_its_calls():
    (function,) = inline(closures()).functions
    nodes = {node.name: node for node in function.nodes if node.type != "Constant"}
    assert types(function) == ["AllReduce", "Mul", "AllReduce", "Mul", "Add"]
    first, product, second, other, total = nodes.values()
    assert first.inputs == second.inputs == ("main:x",)
    assert product.inputs == ("main:x", first.name)
    assert other.inputs == ("main:x", second.name)
    assert total.inputs == (product.name, other.name)


def test_the_model_that_is_inlined_stays_as_it_was():
    model = closures()
    before = model.proto.SerializeToString()
    inline(model)
    assert model.proto.SerializeToString() == before


def test_meetings_are_in_the_order_of_a_step():
    found = meetings(inline(closures()), 0)
    assert [(each.ranks, each.what) for each in found] == [((0, 1), "AllReduce sum 4 float32")] * 2


def test_collectives_are_chained_and_the_result_waits_for_the_last():
    function, groups = rewritten(single("AllReduce", (4,), (4,), op="sum"))
    assert types(function) == ["AllReduce", "Depend", "AllReduce", "Add", "Depend"]
    assert function.by_name["b"].inputs[0].startswith("replay_Depend")
    assert function.by_name[function.by_name["b"].inputs[0]].inputs == ("x", "a")
    assert function.by_name[function.proto.output[0].name].inputs == ("sum", "b")
    assert groups == {"ranks_0_1": (0, 1)}
    assert function.by_name["a"].attribute("group") == "ranks_0_1"


@pytest.mark.parametrize(
    ("operator", "shape", "given", "attributes", "expected"),
    [
        ("AllGather", (4, 2), (2, 2), {}, ["MakeTuple", "Concat", "AllReduce"]),
        ("ReduceScatter", (2, 2), (4, 2), {"op": "sum"}, ["AllReduce", "StridedSlice"]),
        (
            "AllReduce",
            (4,),
            (4,),
            {"op": "max"},
            ["Reshape", "MakeTuple", "Concat", "AllReduce", "ReduceMax"],
        ),
        ("Send", (4,), (4,), {"dest_rank": 0, "sr_tag": 0}, ["AllReduce"]),
        ("Receive", (4,), (3,), {"src_rank": 0, "sr_tag": 0}, ["Depend", "AllReduce"]),
    ],
)
def test_only_sums_remain(operator, shape, given, attributes, expected):
    function, groups = rewritten(single(operator, shape, given, **attributes))
    assert types(function) == [*expected, "Depend", *expected, "Add", "Depend"]
    assert {node.attribute("op") for node in function.nodes if node.type == "AllReduce"} == {"sum"}
    assert groups == {"ranks_0_1": (0, 1)}
    assert function.tensors["a"].shape == shape


def test_a_rank_puts_its_rows_in_its_own_place():
    function, _ = rewritten(single("AllGather", (6, 2), (2, 2), ranks=(0, 1, 2)), rank=1)
    (pieces, *_) = (node for node in function.nodes if node.type == "MakeTuple")
    assert [function.tensors.get(name, name) for name in pieces.inputs] == [
        mindir.Tensor((2, 2), "float32"),
        function.tensors["x"],
        mindir.Tensor((2, 2), "float32"),
    ]
    assert pieces.inputs[1] == "x"
    first, _ = rewritten(single("AllGather", (6, 2), (2, 2), ranks=(0, 1, 2)), rank=0)
    (pieces, *_) = (node for node in first.nodes if node.type == "MakeTuple")
    assert first.tensors[pieces.inputs[1]].shape == (4, 2)


def test_whole_numbers_travel_as_two_halves_in_float32():
    function, _ = rewritten(single("AllGather", (4, 2), (2, 2), dtype=INTEGER))
    upper = ["RightShift", "BitwiseAnd", "Cast", "AllReduce", "Cast"]
    lower = ["Cast", "Depend", "AllReduce", "Cast"]
    assert types(function)[:13] == ["MakeTuple", "Concat", *upper, *lower, "Mul", "Add"]
    assert function.tensors["a"].dtype == "int32"


def test_what_cannot_be_summed_is_refused_by_name():
    with pytest.raises(ValueError, match="replay cannot do Broadcast"):
        rewrite(single("Broadcast", (4,), (4,), root_rank=0), 0)
