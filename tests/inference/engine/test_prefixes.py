"""Texts that stay in their rows: what is used again, by whom, and that the results are the same."""

from __future__ import annotations

import pytest
from fake_decoder import DRAWN, FakeDecoder, alone

from pangu_alpha.inference.engine.requests import (
    Finished,
    PromptScores,
    RefusedError,
    Request,
    Started,
    Token,
)
from pangu_alpha.inference.engine.scheduler import Engine

STOP = 0
HEAD = tuple(range(1, 11))  # two whole chunks and a half


@pytest.fixture
def decoder():
    """Three rows of 24 slots, chunks of 4."""
    return FakeDecoder()


@pytest.fixture
def engine(decoder):
    """An engine over it."""
    return Engine(decoder, {STOP})


def ask(prompt, count=2, **options):
    """A request that does not stop by itself."""
    return Request(tuple(prompt), DRAWN, count, **{"logit_bias": {STOP: -100.0}, **options})


def run(engine, *requests):
    """(cached ids of each request, ids of each, events)."""
    numbers = [engine.submit(request) for request in requests]
    events = []
    while engine.busy:
        events += engine.tick()
    cached = {e.request: e.cached for e in events if isinstance(e, Started)}
    ids = {n: [e.token for e in events if isinstance(e, Token) and e.request == n] for n in numbers}
    return [cached[n] for n in numbers], [ids[n] for n in numbers], events


def test_a_prefix_is_used_up_to_a_border_of_chunks(engine, decoder):
    for prompt, expected in (
        (HEAD, 0),
        ((*HEAD, 11, 12), 8),  # in the row itself
        (HEAD, 8),  # its last two ids are computed again, for the logits
        (HEAD[:8], 4),  # the last id must be computed, so the chunk that it ends
        ((1, 2, 3, 9, 9), 0),
        ((*HEAD[:6], 11), 4),
    ):
        request = ask(prompt)
        cached, ids, _ = run(engine, request)
        assert (cached, ids) == ([expected], [alone(decoder, request)[0]])


def test_generated_ids_are_not_used_again_unless_it_is_asked_for(engine, decoder):
    request = ask(HEAD, 5)
    _, (ids,), _ = run(engine, request)
    assert run(engine, ask((*HEAD, *ids, 3)))[0] == [8]
    _, (ids,), _ = run(engine, ask((3, 3, 3), 5))
    turn = ask((3, 3, 3, *ids, 7, 7), exact=False)
    fed = len(decoder.fed)
    cached, found, _ = run(engine, turn)
    assert cached == [7]  # the last new id was never computed
    assert decoder.fed[fed:] == [(1, 7, 1), (1, 8, 2)]  # and nothing else is
    assert found == [alone(decoder, turn)[0]]


def test_a_row_in_use_is_copied_from(engine, decoder):
    engine.submit(ask(HEAD, 12))
    for _ in range(4):
        engine.tick()
    assert run(engine, ask((*HEAD, 12)))[0] == [8] and decoder.copies == [(0, 1, 8)]


def test_the_row_that_was_not_used_for_longest_is_given_away(engine, decoder):
    run(engine, ask([1] * 5), ask([2] * 5), ask([3] * 5))
    run(engine, ask([1] * 6))
    run(engine, ask([4] * 5))  # takes the row of [2]
    assert [run(engine, ask([n] * 6))[0] for n in (1, 3, 4, 2)] == [[4], [4], [4], [0]]


def test_keys_share_nothing(engine):
    run(engine, ask(HEAD, key="a"))
    assert run(engine, ask(HEAD, key="b"))[0] == [0]
    assert run(engine, ask(HEAD, key="a"))[0] == [8]
    run(engine, ask([2] * 5, key="c"))
    for n in (3, 4, 5):
        run(engine, ask([n], key="c"))  # takes the rows of a and b
    assert run(engine, ask(HEAD, key="a"))[0] == [0]


def test_a_key_does_not_see_what_its_row_held_for_another_one(decoder):
    engine = Engine(FakeDecoder(rows=2), {STOP})
    run(engine, ask(HEAD, key="a"))
    run(engine, ask(HEAD, key="a"), ask(HEAD, key="a"))
    engine.submit(ask([*HEAD[:4], 9, 9, 9], 5, key="b"))
    engine.submit(ask(HEAD, key="b"))  # while b's first row waits for its first chunk
    starts = [event for event in engine.tick() if isinstance(event, Started)]
    assert [event.cached for event in starts] == [0, 0]


def test_pinned_texts_are_for_every_key_and_stay(decoder):
    decoder = FakeDecoder(pinned=1)
    engine = Engine(decoder, {STOP})
    assert engine.pin(HEAD) == 8
    for n in range(5):
        run(engine, ask([n + 1] * 5, key="x"))
    for key in ("a", "b"):
        request = ask((*HEAD, 12), key=key)
        cached, ids, _ = run(engine, request)
        assert (cached, ids) == ([8], [alone(decoder, request)[0]])
    assert all(copy[0] == 3 for copy in decoder.copies) and decoder.texts[3] == [*HEAD[:8]]
    with pytest.raises(RefusedError, match="all 1 pinned rows are taken"):
        engine.pin(HEAD)


def scores(events):
    """Of all prompts, by request."""
    return [event.scores for event in events if isinstance(event, PromptScores)]


def test_a_cached_prefix_brings_its_scores(engine, decoder):
    run(engine, ask((*HEAD, 11), 0, prompt_logprobs=3))
    for prompt, top, expected in (
        ((*HEAD, 12), 3, 8),
        ((*HEAD[:8], 12), 3, 4),  # id 8 differs, which the line before it predicts: that chunk is scored
        ((*HEAD, 12), 5, 0),  # more of the likeliest than are known
        ((*HEAD, 12), 2, 8),
    ):
        request = ask(prompt, 0, prompt_logprobs=top)
        cached, _, events = run(engine, request)
        assert cached == [expected]
        _, _, fresh = run(Engine(FakeDecoder(), {STOP}), request)
        assert scores(events) == scores(fresh)  # also as many of the likeliest, of every id
    run(engine, ask([2] * 6))
    assert run(engine, ask([2] * 6, 0, prompt_logprobs=0))[0] == [0]  # that row has no scores


def test_scores_of_a_prompt_of_several_samples_come_once(engine):
    _, _, events = run(engine, ask(HEAD, 2, prompt_logprobs=1, samples=5))
    assert len(scores(events)) == 1 and len(scores(events)[0]) == 9
    assert sum(isinstance(event, Finished) for event in events) == 5
