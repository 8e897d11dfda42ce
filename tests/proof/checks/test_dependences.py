"""What a graph forces of the order of its collectives, on graphs made by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from pangu_alpha.proof.checks.dependences import partial_order
from pangu_alpha.proof.graph.inline import inline

_SPEC = importlib.util.spec_from_file_location(
    "rewriting", Path(__file__).parents[1] / "graph" / "test_rewrite.py"
)
rewriting = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rewriting)
Graph = rewriting.Graph


def diamond():
    """Two sums of one input, whose results are added; a third of what was added."""
    graph = Graph()
    main = graph.model.graph
    main.name = "main"
    graph.input(main, "x", (4,))
    reduce = graph.primitive("AllReduce", (0, 1), op="sum")
    graph.node(main, "a", reduce, ["x"], (4,))
    graph.node(main, "b", reduce, ["x"], (4,))
    graph.node(main, "added", graph.primitive("Add"), ["a", "b"], (4,))
    graph.node(main, "c", reduce, ["added"], (4,))
    main.output.add(name="c")
    return graph.read()


def blocks():
    """Two calls of a function of two sums, the second after a sum that waits for the first."""
    graph = Graph()
    main, layer = graph.model.graph, graph.model.functions.add(name="layer")
    main.name = "main"
    graph.input(main, "main:x", (4,))
    for name in ("layer:i", "layer:late"):
        graph.input(layer, name, (4,))
    reduce = graph.primitive("AllReduce", (0, 1), op="sum")
    add = graph.primitive("Add")
    graph.node(layer, "layer:one", reduce, ["layer:i"], (4,))
    graph.node(layer, "layer:two", reduce, ["layer:late"], (4,))
    graph.node(layer, "layer:out", add, ["layer:one", "layer:two"], (4,))
    layer.output.add(name="layer:out")
    graph.node(main, "main:first", "REF::layer", ["main:x", "main:x"], (4,))
    graph.node(main, "main:between", reduce, ["main:first"], (4,))
    graph.node(main, "main:second", "REF::layer", ["main:x", "main:between"], (4,))
    main.output.add(name="main:second")
    return graph.read()


def test_only_what_needs_a_result_is_forced():
    found = partial_order(diamond())
    assert [each.node for each in found.collectives] == ["a", "b", "c"]
    assert found.before == (0b00, 0b00, 0b11)
    assert found.free_pairs([0, 1, 2]) == [(0, 1)]
    assert found.free_in_groups() == 1


def test_a_function_is_a_block_whose_inputs_are_there_when_it_begins():
    found = partial_order(blocks())
    assert [each.node.rpartition(":")[2] for each in found.collectives] == [
        "one",
        "two",
        "between",
        "one",
        "two",
    ]
    # The first sum of the second call needs main:x alone, but its block waits for main:between.
    assert found.before == (0b00000, 0b00000, 0b00011, 0b00111, 0b00111)
    assert found.free_pairs(range(5)) == [(0, 1), (3, 4)]


def test_an_inlined_function_is_no_block_any_more():
    found = partial_order(inline(blocks()))
    assert found.before == (0b00000, 0b00000, 0b00011, 0b00000, 0b00111)


def test_a_call_of_a_function_that_the_graph_does_not_name_is_refused():
    with pytest.raises(ValueError, match="calls a function it does not name; it must say which one"):
        partial_order(rewriting.closures())
