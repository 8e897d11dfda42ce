"""Nats as a distribution: they sum to one, and greedy generation is the likeliest of all enumerated texts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

END = 5


@pytest.fixture(scope="module")
def tiny(build_model):
    """A network of six words."""
    return build_model(vocab_size=6, seq_length=16)


@pytest.fixture(scope="module")
def engine(tiny):
    """Computes its nats."""
    from pangu_alpha.inference.nats import NatsEngine

    return NatsEngine(tiny, END, batch_size=2)


def all_continuations(engine, prompt):
    """The sum of nats of every continuation of three words."""
    from pangu_alpha.inference.nats import Labelled

    words = list(itertools.product(range(6), repeat=3))
    found = engine.predict([Labelled((*prompt, *each), len(prompt)) for each in words])
    return {each: nats.nats.sum(dtype=np.float64) for each, nats in zip(words, found, strict=True)}


def test_all_continuations_sum_to_one_and_so_do_their_beginnings(engine):
    from pangu_alpha.inference.nats import Labelled

    sums = all_continuations(engine, (1, 2))
    assert np.exp([-nats for nats in sums.values()]).sum() == pytest.approx(1.0, abs=1e-5)
    one = engine.predict([Labelled((1, 2, word), 2) for word in range(6)])
    for word, found in enumerate(one):
        total = sum(np.exp(-nats) for each, nats in sums.items() if each[0] == word)
        assert total == pytest.approx(np.exp(-found.nats[0]), abs=1e-5)


@pytest.mark.parametrize("prompt", [(1, 2), (4,), (3, 3, 0, 1)])
def test_greedy_generation_takes_the_likeliest_at_each_place(tiny, engine, prompt):
    from pangu_alpha.config.generate import SamplingConfig
    from pangu_alpha.inference.generate import Generator

    sums = all_continuations(engine, prompt)
    expected = []
    for _ in range(3):
        begins = {}
        for each, nats in sums.items():
            if list(each[: len(expected)]) == expected:
                key = each[len(expected)]
                begins[key] = begins.get(key, 0.0) + np.exp(-nats)
        expected.append(max(begins, key=begins.get))
        if expected[-1] == END:
            break
    generator = Generator(tiny, END, 1, 16)
    try:
        (found,) = generator.generate([prompt], SamplingConfig(greedy=True, max_new_tokens=3))
    finally:
        generator.close()
    assert [*found.ids, *([END] if found.reason == "stop" else [])] == expected


def test_likeliest_says_whether_greedy_generation_would_give_the_id(engine):
    from pangu_alpha.inference.nats import Labelled

    found = engine.predict([Labelled((1, 2, word), 2) for word in range(6)])
    best = min(range(6), key=lambda word: found[word].nats[0])
    assert [bool(each.likeliest[0]) for each in found] == [word == best for word in range(6)]


def test_labels_after_one_token_share_its_row():
    from pangu_alpha.inference.nats import LABELS, shared_rows

    nodes = np.array([7, 3, 7, 7, 3] + [7] * LABELS)
    labels, rows, columns = shared_rows(nodes)
    assert len(labels) == 3  # one of 3, two of 7, which has more labels than a row takes
    assert (nodes[labels][rows] == nodes).all()
    assert len({*zip(rows.tolist(), columns.tolist(), strict=True)}) == len(nodes)
    assert columns.max() < LABELS


def test_the_model_is_free_after_an_error(tiny, engine, monkeypatch):
    from pangu_alpha.inference.nats import Labelled

    monkeypatch.setattr(type(engine), "_run", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.predict([Labelled((1, 2), 1)])
    assert not tiny.query_layer.attention.cached
