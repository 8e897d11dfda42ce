"""Merged collectives on graphs made by hand; that a merged plan computes the same is shown by replays."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.proof.checks.dependences import partial_order
from pangu_alpha.proof.graph import mindir
from pangu_alpha.proof.graph.fusion import fuse
from pangu_alpha.proof.graph.inline import inline
from pangu_alpha.proof.graph.rewrite import rewrite

_SPEC = importlib.util.spec_from_file_location("rewriting", Path(__file__).parent / "test_rewrite.py")
rewriting = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rewriting)

ROWS = {"AllReduce": (1, 1), "AllGather": (1, 2), "ReduceScatter": (2, 1)}  # before and after


def chain(operation, fusions, second="x1", **attributes):
    """Collectives of x0 [2, 3] and of `second` (x1 [4] by default), each used by what follows it."""
    graph = rewriting.Graph()
    main = graph.model.graph
    main.name = "main"
    before, after = ROWS[operation]
    shapes = {"x0": (2, 3), "x1": (4,)}
    for name, shape in shapes.items():
        graph.input(main, name, shape)

    def result(shape):
        return (shape[0] * after // before, *shape[1:])

    for number, (source, fusion) in enumerate(zip(("x0", second), fusions, strict=True)):
        kind = graph.primitive(operation, (0, 1), fusion=fusion, op="sum", **attributes)
        shape = result(shapes.get(source) or result(shapes["x0"]))
        graph.node(main, f"c{number}", kind, [source], shape)
        graph.node(main, f"n{number}", graph.primitive("Neg"), [f"c{number}"], shape)
    graph.node(main, "out", graph.primitive("MakeTuple"), ["n0", "n1"])
    main.output.add(name="out")
    return graph.read()


def run(model, operation, inputs):
    """What rank 0 computes, where rank 1 gives 10 times its tensors; by node."""
    values = dict(inputs)
    (function,) = model.functions
    for node in function.nodes:
        given = [values[name] for name in node.inputs]
        if node.type == "Constant":
            content = next(mindir.value(each) for each in node.proto.attribute if each.name == "value")
            values[node.name] = content
        elif node.type == "Reshape":
            values[node.name] = given[0].reshape(given[1])
        elif node.type == "MakeTuple":
            values[node.name] = given
        elif node.type == "Concat":
            values[node.name] = np.concatenate(given[0], given[1])
        elif node.type == "StridedSlice":
            x, begin, end, step = given[:4]
            values[node.name] = x[tuple(map(slice, begin, end, step))]
        elif node.type == "Neg":
            values[node.name] = -given[0]
        else:
            values[node.name] = COLLECTIVES[operation](given[0])
    return values


COLLECTIVES = {
    "AllReduce": lambda x: x + 10 * x,
    "AllGather": lambda x: np.concatenate([x, 10 * x]),
    "ReduceScatter": lambda x: 11 * x[: len(x) // 2],
}


@pytest.mark.parametrize("operation", ROWS)
def test_two_collectives_become_one_and_compute_the_same(operation):
    model = chain(operation, (1, 1))
    merged = fuse(model, 0)
    (only,) = mindir.collectives(merged)
    assert (only.operation, only.ranks, only.payload.dtype) == (operation, (0, 1), "float32")
    assert only.bytes == sum(each.bytes for each in mindir.collectives(model))
    random = np.random.default_rng(0)
    inputs = {"x0": random.normal(size=(2, 3)), "x1": random.normal(size=4)}
    expected, found = run(model, operation, inputs), run(merged, operation, inputs)
    for name in ("c0", "c1", "n0", "n1"):
        assert np.array_equal(expected[name], found[name])
        assert merged.functions[0].tensors[name] == model.functions[0].tensors[name]


@pytest.mark.parametrize("operation", ROWS)
def test_a_merged_graph_can_be_replayed(operation):
    content, groups = rewrite(fuse(chain(operation, (1, 1)), 0), 0)
    assert groups == {"ranks_0_1": (0, 1)}
    assert sum(node.type == "AllReduce" for node in mindir.read(content).functions[0].nodes) == 1


def test_the_graph_that_is_merged_stays_as_it_was():
    model = chain("AllReduce", (1, 1))
    before = model.proto.SerializeToString()
    fuse(model, 0)
    assert model.proto.SerializeToString() == before


@pytest.mark.parametrize("fusions", [(0, 0), (1, 0), (1, 2)])
def test_other_numbers_are_not_merged(fusions):
    model = chain("AllReduce", fusions)
    assert fuse(model, 0).proto.SerializeToString() == model.proto.SerializeToString()


def test_one_that_needs_the_other_cannot_be_merged_with_it():
    with pytest.raises(ValueError, match="need each other's results.* set parallel.gradient_fusion to 0"):
        fuse(chain("AllReduce", (1, 1), second="n0"), 0)


def test_a_merged_collective_waits_for_all_that_it_merges():
    order = partial_order(inline(fuse(chain("AllReduce", (1, 1)), 0)))
    assert len(order.collectives) == 1 and order.free_in_groups() == 0
    assert partial_order(chain("AllReduce", (1, 1))).free_in_groups() == 1


def test_mindspore_merges_nothing_unless_a_plan_asks_for_it():
    # Its graphs number collectives in any case, and get_auto_parallel_context says "openstate": True.
    from mindspore.parallel._auto_parallel_context import auto_parallel_context

    handle = auto_parallel_context()._context_handle
    assert not handle.get_enable_all_reduce_fusion()
    assert not handle.get_enable_all_gather_fusion()
    assert not handle.get_enable_reduce_scatter_fusion()
