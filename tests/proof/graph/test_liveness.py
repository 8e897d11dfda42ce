"""What a graph keeps for the backward pass: peaks by hand, and a layer's bytes in a real graph."""

from __future__ import annotations

from collections import Counter

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.graph import liveness, mindir
from pangu_alpha.proof.graph.liveness import Kept, Tensor

MODEL = ModelConfig(512, 256, 2, 4, seq_length=128, dropout=0.0)


def tensor(size, made, read, part="layers", layer="blocks.0"):
    return Tensor(f"{made}", "Add", part, layer, size, made, read)


def test_the_peak_is_of_what_is_alive_together():
    found = [tensor(10, 0, 5), tensor(20, 1, 2), tensor(5, 2, 3), tensor(30, 6, 7)]
    assert liveness.peak(found) == 35  # the second is still read when the third is made
    assert liveness.peak([]) == 0


def test_bytes_of_a_micro_batch_and_of_all_in_flight():
    # Two of four micro-batches in flight, 100 bytes each; and a copy of a weight for each.
    tensors = [tensor(100, made, made + 15) for made in (0, 10, 20, 30)]
    tensors += [tensor(8, made, made + 15, "copies", "") for made in (0, 10, 20, 30)]
    found = Kept(4, tuple(tensors)).bytes()
    assert found.micro_batch == {"activations": 100, "loss": 0, "copies": 8}
    assert found.peak == {"activations": 200, "loss": 0, "copies": 16}
    assert found.layers == {"blocks.0": 100}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    job = Job(MODEL, ParallelPlan(tp=2, sequence_parallel=True), batch_size=2)
    return mindir.read(compile_rank(job, 0, tmp_path_factory.mktemp("kept")).graph)


def test_a_layer_keeps_what_its_derivatives_need(graph):
    tokens, hidden, heads = 2 * 128, 256, 4
    found = liveness.kept(graph, 1)
    layer = [each for each in found.tensors if each.layer == "blocks.0"]
    sizes = Counter()
    for each in layer:
        sizes[each.operator] += each.bytes
    assert sizes["AllGather"] == 2 * 2 * tokens * hidden  # whole rows before query, key, value, and before up
    assert sizes["GeLU"] == 2 * tokens * 4 * hidden / 2
    assert sizes["Cast"] == 2 * 4 * tokens * hidden / 2  # inputs of both norms, in float32
    assert sizes["FlashAttentionScore"] == 2 * tokens * hidden / 2 + 64 * tokens * heads / 2 + 2
    assert found.by_layer()["blocks.0"] == sum(each.bytes for each in layer)


def test_weights_in_16_bits_are_copies_and_no_activations(graph):
    hidden = MODEL.hidden_size
    copies = liveness.kept(graph, 1).of("copies")
    weights = [each.bytes for each in copies if each.operator == "Cast"]
    assert sum(weights) == 2 * (2 * 12 * hidden**2 + 512 * hidden) / 2  # two layers and the tied table
    assert all(not each.layer for each in copies)


def test_logits_keep_two_float32_numbers_each(graph):
    found = liveness.kept(graph, 1)
    large = [each for each in found.of("loss") if each.bytes > 10_000]
    assert {each.operator: each.bytes for each in large} == dict.fromkeys(("Exp", "OneHot"), 4 * 256 * 256)
