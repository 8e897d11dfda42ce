"""The search for a block's strategy: hand-worked traffic, brute force, and Megatron's pattern found."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.network.parameters import parameter_table
from pangu_alpha.planner.cost.collectives import Links
from pangu_alpha.planner.cost.hardware import load_cluster
from pangu_alpha.planner.operators.block import FREE, MINDSPORE, block, prime_factors
from pangu_alpha.planner.operators.elimination import Table, minimise
from pangu_alpha.planner.operators.patterns import compared, megatron, operators_text, patterns
from pangu_alpha.planner.operators.redistribution import Step, redistribute, sent
from pangu_alpha.planner.operators.strategies import (
    best_block,
    cheapest,
    choices_of,
    evaluate,
    held,
    seconds,
)

SMALL = ModelConfig(40000, 2560, 32, 32)
LARGE = ModelConfig(40000, 16384, 64, 128)
SEARCHED = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "recursive_programming.json").read_text("utf-8")
)


def roles(strategy):
    """{operator: names of its roles} of the operators that matter."""
    return {name: "".join(role.name for role in each.roles) for name, each in strategy.choices.items()}


@pytest.mark.parametrize(
    ("before", "after", "steps"),
    [
        ("b", "b", []),
        ("=", "b", []),
        ("=", "+", []),
        ("b", "=", [Step("AllGather", 2, 64)]),
        ("+", "b", [Step("ReduceScatter", 2, 64)]),
        ("+", "=", [Step("AllReduce", 2, 64)]),
        ("b", "a", [Step("AlltoAll", 2, 32)]),
        ("b", "+", None),
        # axes with the same task act as one; both dimensions of the rows are rows
        ("bs", "==", [Step("AllGather", 4, 64)]),
        ("++", "bs", [Step("ReduceScatter", 4, 64)]),
        ("++", "==", [Step("AllReduce", 4, 64)]),
        ("bh", "==", [Step("AllGather", 2, 32), Step("AllGather", 2, 64)]),
        # an AllReduce beside others is done as its halves
        ("++", "b=", [Step("ReduceScatter", 4, 64), Step("AllGather", 2, 32)]),
        ("b+", "==", [Step("ReduceScatter", 2, 32), Step("AllGather", 4, 64)]),
        # what shrinks comes first
        ("+b", "ba", [Step("ReduceScatter", 2, 32), Step("AlltoAll", 2, 16)]),
        ("=b", "h=", [Step("AllGather", 2, 32)]),
    ],
)
def test_redistributions_by_hand(before, after, steps):
    assert redistribute(before, after, (2,) * len(before), 64) == steps


def test_rings_send_what_they_should():
    assert [sent(Step(name, 4, 64)) for name in ("AllReduce", "AllGather", "AlltoAll")] == [96, 48, 48]


def test_a_block_has_the_parameters_of_a_layer():
    model = ModelConfig(61, 24, 3, 12, seq_length=8)
    operators = block(model, 2, 2, MINDSPORE).operators.values()
    held = sum(sum(operator.parameters.values()) for operator in operators)
    layer = (spec.shape for spec in parameter_table(model).values() if spec.layer == 0)
    assert held == sum(map(math.prod, layer))


def test_axes_are_prime_factors():
    assert [prime_factors(n) for n in (1, 2, 8, 12, 7)] == [(), (2,), (2, 2, 2), (2, 2, 3), (7,)]


@pytest.mark.parametrize("model", [SMALL, LARGE])
@pytest.mark.parametrize("batch", [1, 4])
def test_on_two_devices_megatrons_pattern_is_found(model, batch):
    grid = block(model, 2, batch, FREE)
    found = cheapest(grid)
    assert dict(found.choices) == megatron(grid)
    size = batch * 1024 * model.hidden_size * 2
    calls = [(each.phase, each.step) for each in found.transfers]
    assert sorted(calls) == 2 * [("backward", Step("AllReduce", 2, size))] + 2 * [
        ("forward", Step("AllReduce", 2, size))
    ]


def test_for_mindspore_it_is_found_with_sequence_parallelism():
    """There a residual stream that all hold has gradients to sum as well: as many as one cut by rows."""
    grid = block(SMALL, 2, 1, MINDSPORE)
    assert dict(cheapest(grid).choices) == megatron(grid, sequence=True)
    assert cheapest(grid).sent == patterns(grid)["Megatron"].sent


def test_on_four_devices_a_two_dimensional_output_beats_it_by_an_eighth_of_attention():
    found = cheapest(block(LARGE, 4, 2, FREE))
    rows = 2 * 1024
    # forward: gather 3/4 for q, k, v; 1/4 and 1/4 around the output's 2 x 2; 3/4 and 3/4 of feed-forward
    size = rows * LARGE.hidden_size * 2
    norms = 4 * 2 * 3 / 4 * LARGE.hidden_size * 4
    assert found.sent == 2 * 2.75 * size + norms
    assert evaluate(found.block, megatron(found.block)).sent == 2 * 3 * size
    assert roles(found)["output"] == "ah"


@pytest.mark.parametrize("rules", [FREE, MINDSPORE])
@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.parametrize(("model", "batch"), [(SMALL, 8), (SMALL, 32), (LARGE, 1)])
def test_nothing_known_is_better_than_what_is_found(model, batch, devices, rules):
    found, *known = compared(block(model, devices, batch, rules)).values()
    assert len(known) >= 2
    assert all(found.sent <= way.sent for way in known)


@pytest.mark.parametrize("case", [each for each in SEARCHED["cases"] if each["batch"] == 8])
def test_what_recursive_programming_chose_is_not_better(case):
    """It cut rows and nothing else, for all sizes: data parallelism."""
    devices = case["devices"]
    rows = [[devices, 1], [1, 1]]
    assert case["products"] == dict.fromkeys(("query", "key", "value", "output", "up", "down"), rows)
    assert case["attention"] == [[devices, 1, 1, 1]]
    heads = {2560: 32, 5120: 40, 16384: 128}[case["hidden"]]
    model = ModelConfig(40000, case["hidden"], 2, heads)
    ways = compared(block(model, devices, case["batch"], MINDSPORE))
    assert ways["found"].sent < ways["data parallel"].sent


def feed_forward(devices, batch, rules=FREE):
    """A ring of the second half of a small block, small enough to try everything."""
    grid = block(ModelConfig(64, 32, 1, 4, seq_length=8), devices, batch, rules)
    names = ("middle", "up", "gelu", "down", "feed_forward_sum")
    kept = {name: grid.operators[name] for name in names}
    kept["middle"] = replace(kept["middle"], inputs=("feed_forward_sum",))
    kept["up"] = replace(kept["up"], inputs=("middle",))
    return replace(grid, operators=kept)


def everything(grid, limit=None, micro_batches=1):
    """Least bytes over all combinations of choices."""
    options = [choices_of(grid, operator, limit) for operator in grid.operators.values()]
    best = math.inf
    for chosen in itertools.product(*options):
        choices = dict(zip(grid.operators, chosen, strict=True))
        if limit is None or sum(held(grid, *item) for item in choices.items()) <= limit:
            try:
                best = min(best, evaluate(grid, choices, micro_batches).sent)
            except ValueError:
                continue
    return best


@pytest.mark.parametrize("rules", [FREE, MINDSPORE])
@pytest.mark.parametrize(("devices", "batch"), [(2, 1), (2, 64), (3, 6)])
def test_brute_force_finds_nothing_better(devices, batch, rules):
    grid = feed_forward(devices, batch, rules)
    assert cheapest(grid).sent == everything(grid)


@pytest.mark.parametrize("share", [1.0, 0.75, 0.5])
def test_brute_force_finds_nothing_better_under_a_limit(share):
    grid = feed_forward(2, 64)
    limit = share * 12 * 2 * 4 * 32 * 32
    found = cheapest(grid, 3, limit)
    assert found.held <= limit
    assert found.sent == everything(grid, limit, 3)


@pytest.mark.parametrize("seed", range(5))
def test_elimination_is_exact_on_random_tables_with_levels(seed):
    random = np.random.default_rng(seed)
    sizes = dict(zip("abcde", (3, 2, 4, 3, 2), strict=True))
    edges = ["ab", "bc", "cd", "de", "ea", "ac"]
    scopes = [*sizes, *edges]
    tables = [
        Table(tuple(scope), {level: random.random([sizes[name] for name in scope]) for level in (0, 1)})
        for scope in scopes
    ]
    for limit in (2, 5, math.inf):
        cost, chosen = minimise(tables, limit)
        assert cost == pytest.approx(_least(tables, sizes, limit))
        place = [
            {level: array[tuple(chosen[n] for n in t.scope)] for level, array in t.levels.items()}
            for t in tables
        ]
        assert cost == pytest.approx(_knapsack(place, limit))


def _least(tables, sizes, limit):
    return min(
        _knapsack(
            [
                {
                    level: array[tuple(dict(zip(sizes, chosen, strict=True))[n] for n in table.scope)]
                    for level, array in table.levels.items()
                }
                for table in tables
            ],
            limit,
        )
        for chosen in itertools.product(*map(range, sizes.values()))
    )


def _knapsack(levels, limit):
    """Least sum of one number of each table, levels 0 or 1, at most `limit` of the latter."""
    gains = sorted(each[1] - each[0] for each in levels)
    taken = [gain for gain in gains[: None if limit == math.inf else int(limit)] if gain < 0]
    return sum(each[0] for each in levels) + sum(taken)


def test_a_limit_makes_devices_share_matrices():
    whole = replace(MINDSPORE, slices=False)
    matrices = 12 * 12 * SMALL.hidden_size**2  # float32 and two moments of 12 H^2
    free = best_block(SMALL, 8, 32, rules=whole)
    tight = best_block(SMALL, 8, 32, limit=matrices / 8, rules=whole)
    assert (free.held, tight.held) == (matrices // 2, matrices // 8)
    assert free.sent < tight.sent < patterns(tight.block)["Megatron"].sent
    assert {roles(tight)[name] for name in ("query", "key", "value")} == {"aaa"}
    sliced = best_block(SMALL, 8, 32, limit=matrices / 8)  # gathered in 16 bits, twice: the same bytes
    assert (sliced.held, sliced.sent) == (matrices // 8, free.sent)
    often = best_block(SMALL, 8, 32, micro_batches=8, limit=matrices / 8)  # for every micro-batch: more
    assert often.sent > best_block(SMALL, 8, 32, micro_batches=8).sent


def test_few_tokens_share_matrices_and_many_share_rows():
    assert roles(best_block(SMALL, 2, 1))["up"] == "f"
    assert set(roles(best_block(SMALL, 2, 32)).values()) == {"b"}
    between = roles(best_block(SMALL, 2, 16))  # 4 H < T < 8 H
    assert (between["query"], between["up"]) == ("b", "f")


def test_a_price_in_seconds_prefers_fewer_hops_where_latency_rules():
    tiny = block(ModelConfig(64, 64, 1, 8, seq_length=16), 4, 1, FREE)
    price = seconds(Links(load_cluster("910a-8")))
    quick, frugal = cheapest(tiny, price=price), cheapest(tiny)
    assert quick.cost(price) < frugal.cost(price)
    assert quick.sent > frugal.sent
    assert hops(quick) < hops(frugal)


def hops(strategy):
    """Messages that a device sends one after another."""
    rings = ((2 if s.operation == "AllReduce" else 1) * (s.group - 1) for _, _, s, _ in strategy.transfers)
    return sum(rings)


@pytest.mark.parametrize(
    ("devices", "batch", "limit", "message"),
    [
        (7, 2, None, "devices: 7 cannot share 'query'|devices: 7 cannot share 'core'"),
        (1, 2, None, "devices: 1 must be at least 2"),
        (2, 0, None, "batch: 0 must be at least 1"),
        (4, 2, 1e6, "limit: no way holds at most 1,000,000 bytes; the least is 235,929,600"),
    ],
)
def test_impossible_asks_are_refused(devices, batch, limit, message):
    with pytest.raises(ValueError, match=message):
        best_block(SMALL, devices, batch, limit=limit)


def test_a_way_that_mindspore_cannot_express_is_not_evaluated():
    free = cheapest(block(LARGE, 4, 2, FREE))
    with pytest.raises(ValueError, match="output -> attention_sum, forward: \\+h cannot become hh"):
        evaluate(block(LARGE, 4, 2, MINDSPORE), free.choices)


def test_the_text_shows_ways_roles_and_transfers():
    text = operators_text(SMALL, 2, 8)
    assert "found                        167,833,600      100.00%  167,772,160" in text
    assert "data parallel                314,705,920      187.51%" in text
    assert "output             a" in text
    assert "output -> attention_sum" in text
