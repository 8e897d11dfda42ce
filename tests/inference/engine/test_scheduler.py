"""One request and several on the fake decoder: what is computed when, and what is said about it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fake_decoder import DRAWN, Clock, FakeDecoder, alone, state_after

from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.inference.engine.requests import (
    Finished,
    Limits,
    PromptScores,
    QueueFullError,
    RefusedError,
    Request,
    Started,
    Token,
)
from pangu_alpha.inference.engine.scheduler import Engine

STOP = 0


@pytest.fixture
def decoder():
    """Three rows of 24 slots, chunks of 4."""
    return FakeDecoder()


@pytest.fixture
def engine(decoder):
    """An engine whose stop id the tests ban where they need a given length."""
    return Engine(decoder, {STOP}, clock=Clock())


def ask(prompt, count=3, **options):
    """A request that does not stop by itself."""
    return Request(tuple(prompt), DRAWN, count, **{"logit_bias": {STOP: -100.0}, **options})


def run(engine):
    """All events until nothing is left."""
    events = []
    while engine.busy:
        events += engine.tick()
    return events


def run_for(engine, ticks):
    """The events of some ticks."""
    return [event for _ in range(ticks) for event in engine.tick()]


def texts(events):
    """By (request, sample): (ids, reason)."""
    found = {}
    for event in events:
        if isinstance(event, Token):
            found.setdefault((event.request, event.sample), []).append(event.token)
        elif isinstance(event, Finished):
            key = (event.request, event.sample)
            found[key] = (found.get(key, []), event.reason)
    return found


def test_a_tick_is_at_most_one_chunk_and_one_step(engine, decoder):
    engine.submit(ask(range(1, 7), 4))
    engine.submit(ask(range(2, 11), 4))
    calls = []
    while engine.busy:
        before = len(decoder.fed), len(decoder.steps)
        engine.tick()
        calls.append((len(decoder.fed) - before[0], len(decoder.steps) - before[1]))
    # Two chunks of the first prompt, three of the second beside the first one's steps, then the second's.
    assert calls == [(1, 0), (1, 0), (1, 1), (1, 1), (1, 1), (0, 1), (0, 1), (0, 1)]
    assert decoder.fed == [(0, 0, 4), (0, 4, 2), (1, 0, 4), (1, 4, 4), (1, 8, 1)]
    assert decoder.steps == [[True, False, False]] * 3 + [[False, True, False]] * 3


def test_the_texts_are_those_of_each_request_alone(engine, decoder):
    requests = [ask([5, 6], 9), ask([7] * 9, 2), ask([8] * 20, 9), ask([1, 2, 3], 0), ask([9], 5)]
    numbers = [engine.submit(request) for request in requests]
    found = texts(run(engine))
    for number, request in zip(numbers, requests, strict=True):
        assert found[number, 0] == alone(decoder, request)
    assert [found[number, 0][1] for number in numbers] == ["length", "length", "context", "length", "length"]
    assert len(found[2, 0][0]) == 5  # the last one needs no slot
    assert found[3, 0][0] == []


def test_stop_ids_end_a_text_and_are_not_given_out(decoder):
    request = Request((3, 4), SamplingConfig(greedy=True), 9)
    ids, _ = alone(decoder, request)
    engine = Engine(decoder, {ids[2]})
    engine.submit(request)
    assert texts(run(engine)) == {(0, 0): (ids[: ids.index(ids[2])], "stop")}
    engine = Engine(decoder, ())
    engine.submit(Request((3, 4), SamplingConfig(greedy=True), 9, stop_ids=(ids[0],)))
    assert texts(run(engine)) == {(0, 0): ([], "stop")}


def test_a_callback_ends_a_text_with_the_token_that_it_saw(engine):
    seen = []

    def finished(sample, token):
        seen.append(token)
        return len(seen) == 2

    engine.submit(ask([3, 4], 9, finished=finished))
    assert texts(run(engine)) == {(0, 0): (seen, "stop")}


def test_samples_share_one_prefill_and_are_those_drawn_alone(engine, decoder):
    request = ask(range(1, 7), 4, samples=5)
    engine.submit(request)
    events = run(engine)
    assert [event.sample for event in events if isinstance(event, Started)] == [0, 1, 2, 3, 4]
    assert decoder.fed == [(0, 0, 4), (0, 4, 2)]  # once for all five, also for those that waited for a row
    assert [copy[2] for copy in decoder.copies] == [6, 6, 6, 6]
    found = texts(events)
    assert found == {(0, n): alone(decoder, request, n) for n in range(5)}
    assert len({tuple(ids) for ids, _ in found.values()}) > 1
    assert engine.counts.prompt == 30 and engine.counts.cached == 24 and engine.counts.fed == 6
    engine.submit(ask(range(1, 7), 4, first_sample=3))
    assert texts(run(engine)) == {(1, 3): found[0, 3]}


def test_samples_with_one_row_are_the_same(decoder):
    request = ask(range(1, 7), 4, samples=3)
    engine = Engine(single := FakeDecoder(rows=1), {STOP})
    engine.submit(request)
    assert texts(run(engine)) == {(0, n): alone(decoder, request, n) for n in range(3)}
    assert single.fed == [(0, 0, 4), (0, 4, 2), (0, 4, 2), (0, 4, 2)]


def test_a_sample_that_waits_for_another_ones_prompt_goes_on_when_that_is_cancelled(engine, decoder):
    request = ask(range(1, 11), 4, samples=2)
    number = engine.submit(request)
    engine.tick()
    engine.cancel(number, 0)
    assert texts(run(engine)) == {(0, 1): alone(decoder, request, 1)}


def test_cancelling_frees_the_row_before_anything_is_computed(engine, decoder):
    running, waiting = [engine.submit(ask([n], 9)) for n in (1, 2, 3)], engine.submit(ask([4], 2))
    for _ in range(4):
        engine.tick()
    engine.cancel(running[1])
    engine.cancel(99)
    steps = len(decoder.steps)
    events = engine.tick()
    assert Started(waiting, 0, 0, 0.0) in events and running[1] not in {event.request for event in events}
    assert decoder.steps[steps] == [True, False, True]
    engine.cancel(running[0])
    engine.cancel(waiting)
    engine.cancel(running[2])
    assert engine.busy and engine.tick() == [] and not engine.busy and engine.running == 0
    assert engine.counts.finished == {"cancelled": 4}


def test_what_expires_says_so_wherever_it_is(engine, decoder):
    clock = engine._clock
    for n in (1, 2, 3):
        engine.submit(ask([n], 20, timeout=5.0 if n == 2 else None))
    engine.submit(ask([4], 2, timeout=5.0, samples=2))
    for _ in range(4):
        engine.tick()
    clock.now += 4.999
    assert not any(isinstance(event, Finished) for event in engine.tick())
    clock.now += 0.001
    ended = [event for event in engine.tick() if isinstance(event, Finished)]
    assert [event[:3] for event in ended] == [(1, 0, "expired"), (3, 0, "expired"), (3, 1, "expired")]
    assert ended[0].usage.generated == 4 and ended[1].usage == (1, 0, 0, 5.0, 0.0, 0.0)
    assert engine.running == 2 and engine.waiting == 0


def test_the_queue_is_bounded_in_requests_and_in_tokens():
    engine = Engine(FakeDecoder(rows=2), {STOP}, limits=Limits(requests=2, tokens=20))
    for _ in range(2):
        engine.submit(ask([1] * 4, 9))
    engine.tick()
    for _ in range(2):
        engine.submit(ask([1] * 4, 4))
    with pytest.raises(QueueFullError, match="2 requests are waiting, and 2 may; try again later") as error:
        engine.submit(ask([1], 1))
    assert error.value.limit == "requests"
    while engine.waiting:
        engine.tick()
    assert engine.waiting == engine.waiting_tokens == 0 and engine.running == 2
    engine.submit(ask([1] * 4, 4, samples=4))
    with pytest.raises(QueueFullError, match="of 20 tokens are waiting, so that one of 2 would exceed .* 20"):
        engine.submit(ask([1], 1))
    assert engine.counts.rejected == {"requests": 1, "tokens": 1} and engine.counts.submitted == 5
    run(engine)
    engine.submit(ask([1], 1))


@pytest.mark.parametrize(
    "samples, taken", [([1] * 12, 5), ([3, 1, 1, 1], 3), ([4, 1, 1, 1], 3), ([1, 1, 2, 2], 4)]
)
def test_of_requests_that_come_at_once_those_for_free_rows_do_not_wait(decoder, samples, taken):
    """Three rows are free, and two requests may wait: of 12 at the same moment, 5 are taken and 7 refused."""
    engine = Engine(decoder, {STOP}, limits=Limits(requests=2))
    refused = 0
    for number, count in enumerate(samples):
        try:
            engine.submit(ask([number + 1], samples=count, key=str(number % 2)))
        except QueueFullError:
            refused += 1
    assert len(samples) - refused == taken
    engine.tick()
    assert engine.running == 3 and engine.waiting == min(2, taken)
    run(engine)
    assert len(engine._rows.idle) == 3 and not engine._queue.tokens


def test_a_request_for_which_rows_are_free_may_have_any_size(decoder):
    engine = Engine(decoder, {STOP}, limits=Limits(tokens=3))
    for _ in range(3):
        engine.submit(ask([1] * 9, 9))
    with pytest.raises(QueueFullError, match="of 0 tokens are waiting, so that one of 4 would exceed"):
        engine.submit(ask([1], 3))
    engine.submit(ask([1], 2))


def test_keys_take_turns_and_within_a_key_the_first_comes_first():
    engine = Engine(FakeDecoder(rows=1), {STOP})
    for key, prompt in (("a", 1), ("a", 2), ("a", 3), ("b", 4), ("b", 5), ("c", 6)):
        engine.submit(ask([prompt], 1, key=key, samples=2 if prompt == 1 else 1))
    order = [(event.request, event.sample) for event in run(engine) if isinstance(event, Started)]
    assert order == [(0, 0), (3, 0), (5, 0), (0, 1), (4, 0), (1, 0), (2, 0)]


def test_bad_requests_are_refused_with_every_reason(engine):
    with pytest.raises(RefusedError) as error:
        engine.submit(ask([], -1, logprobs=41, prompt_logprobs=-1, logit_bias={13: 1.0}))
    assert str(error.value) == (
        "the prompt is empty; samples must be at least 1, first_sample and max_new_tokens at least 0; "
        "logprobs must lie between 0 and 40; prompt_logprobs must lie between 0 and 40; "
        "logit_bias holds ids outside the vocabulary of 13"
    )
    with pytest.raises(RefusedError, match="the prompt has 25 ids, but the context holds 24"):
        engine.submit(ask([1] * 25))
    with pytest.raises(RefusedError, match="the prompt holds ids outside the vocabulary of 13"):
        engine.submit(ask([1, 13]))
    with pytest.raises(RefusedError, match="not finite"):
        engine.submit(ask([1], logit_bias={2: math.nan}))
    with pytest.raises(RefusedError, match="bans every id"):
        Engine(FakeDecoder(), {STOP}, banned=(1, 2)).submit(
            ask([1], logit_bias=dict.fromkeys([0, *range(2, 13)], -100.0))
        )
    assert not engine.busy


def test_logits_that_are_not_finite_end_their_request_alone(engine, decoder):
    decoder.table[1 * 31 + 5 + 7] = np.nan  # after [5]
    engine.submit(ask([5]))
    engine.submit(ask([5], 0, prompt_logprobs=1))
    good = ask([6])
    engine.submit(good)
    events = run(engine)
    assert texts(events) == {
        (0, 0): ([], "not_finite"),
        (1, 0): ([], "not_finite"),
        (2, 0): alone(decoder, good),
    }
    assert not any(isinstance(event, PromptScores) for event in events)


def test_a_row_that_held_numbers_that_are_not_finite_is_cleared_for_the_next_text(decoder):
    """Also the rows of samples, and the row of a prompt that is cancelled while it is scored."""
    decoder.table[1 * 31 + 5 + 7] = np.nan  # after [5]
    engine = Engine(decoder, {STOP})
    engine.submit(ask([5], samples=3))
    scored = engine.submit(ask([5] * 9, 0, prompt_logprobs=1))
    assert texts(run_for(engine, 3))[0, 2] == ([], "not_finite")
    engine.cancel(scored)
    good = [ask([n] * 6) for n in (6, 7, 8)]
    numbers = [engine.submit(request) for request in good]
    found = texts(run(engine))
    assert [found[number, 0] for number in numbers] == [alone(decoder, request) for request in good]
    assert engine.counts.cached == 0  # nothing of the damaged rows


@pytest.mark.parametrize("end", ["cancelled", "expired", "not_finite"])
def test_a_prompt_that_ends_before_its_last_chunk_leaves_nothing_that_is_not_finite(decoder, end):
    """Its logits were never looked at, so the chunks themselves must tell."""
    decoder.table[state_after([5] * 8)] = np.nan
    clock = Clock()
    engine = Engine(decoder, {STOP}, clock=clock)
    bad = engine.submit(ask([5] * 16, timeout=9 if end == "expired" else None))
    twin = ask([5] * 7)  # begins alike, and comes while the other one is computed
    run_for(engine, 1)
    second = engine.submit(twin)
    events = run_for(engine, 1)
    if end == "cancelled":
        engine.cancel(bad)
    elif end == "expired":
        clock.now += 10
    good = [ask([n] * 6) for n in (6, 7, 8)]
    numbers = [engine.submit(request) for request in good]
    found = texts(events + run(engine))
    assert found[bad, 0] == ([], "not_finite")
    assert found[second, 0] == alone(decoder, twin)
    assert [found[number, 0] for number in numbers] == [alone(decoder, request) for request in good]
    assert engine.counts.feeds == 2 + 1 + 3 * 2  # two of its four chunks, of which the twin took the first


def test_a_prompt_of_which_nothing_is_generated_leaves_nothing_that_is_not_finite(decoder):
    decoder.table[state_after([5] * 3)] = np.nan
    engine = Engine(decoder, {STOP})
    engine.submit(ask([5] * 3, 0))
    assert texts(run(engine)) == {(0, 0): ([], "not_finite")}
    assert not any(decoder.damaged)


def test_a_prefix_that_is_not_finite_is_not_pinned():
    decoder = FakeDecoder(pinned=1)
    decoder.table[state_after([5] * 8)] = np.nan
    engine = Engine(decoder, {STOP})
    assert engine.pin([5] * 8) == 0 and not any(decoder.damaged)
    assert engine.pin([6] * 8) == 8  # the row is free for another one
    request = ask([6] * 9)
    engine.submit(request)
    assert texts(run(engine)) == {(0, 0): alone(decoder, request)} and engine.counts.cached == 8


def test_first_tokens_can_be_had_before_the_step_of_others(engine, decoder):
    engine.submit(ask([5] * 3, 9))
    engine.tick()
    request = ask([6] * 7, 4)
    engine.submit(request)
    seen = []

    def early(events):
        seen.append((len(decoder.steps), [type(event) for event in events]))

    steps = len(decoder.steps)
    for chunk in range(2):
        late = engine.tick(early)
        assert [type(event) for event in late] == [Token] if chunk else [Started, Token]
    assert seen == [(steps + 1, [Token])]  # the second tick's step had not begun
    assert {type(event) for event in engine.tick(early)} == {Token} and len(seen) == 1


def test_times_are_those_of_the_clock(decoder):
    clock = Clock()
    engine = Engine(decoder, {STOP}, clock=clock)
    engine.submit(ask(range(1, 7), 2))
    for seconds in (1.0, 2.0, 4.0):
        clock.now += seconds
        events = engine.tick()
    usage = events[-1].usage
    assert usage == (6, 0, 2, 1.0, 2.0, 4.0) and usage._fields[3:] == ("queued", "prefill", "decode")


def exact(logits):
    """Log-softmax in float64."""
    wide = logits.astype(np.float64)
    return wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())


def test_log_probabilities_are_the_networks_own(engine, decoder):
    """Before penalties, bias, temperature and bans."""
    how = SamplingConfig(temperature=0.3, top_p=0.5, presence_penalty=2.0)
    engine.submit(Request((5, 6), how, 4, logit_bias={3: 50.0, 4: -100.0}, logprobs=3))
    ids = [5, 6]
    for event in run(engine):
        if isinstance(event, Token):
            expected = exact(decoder.logits(ids))
            assert event.score.token == event.token == 3
            assert event.score.logprob == pytest.approx(expected[3], abs=1e-6)
            order = np.argsort(-decoder.logits(ids), kind="stable")[:3].tolist()
            assert [token for token, _ in event.score.top] == order
            assert [value for _, value in event.score.top] == pytest.approx(expected[order], abs=1e-6)
            ids.append(event.token)
    assert len(ids) == 6
    assert 4 in {int(decoder.logits(ids[:n]).argmax()) for n in range(2, 7)} or engine.counts.generated == 4


def test_every_id_of_a_prompt_is_scored(engine, decoder):
    prompt = (5, 6, 7, 8, 9, 10)
    engine.submit(ask(prompt, 0, prompt_logprobs=40))
    events = run(engine)
    (scores,) = [event.scores for event in events if isinstance(event, PromptScores)]
    assert [score.token for score in scores] == [*prompt[1:]]
    for place, score in enumerate(scores, 1):
        expected = exact(decoder.logits(prompt[:place]))
        assert score.logprob == pytest.approx(expected[prompt[place]], abs=1e-6)
        assert len(score.top) == 13 and score.top[0][1] == pytest.approx(expected.max(), abs=1e-6)
    assert texts(events) == {(0, 0): ([], "length")}


def test_numbers_for_metrics(engine):
    for n in range(5):
        engine.submit(ask([n + 1] * 5, 2))
    assert engine.waiting == 5 and engine.waiting_tokens == 35 and engine.running == 0
    engine.tick()
    assert engine.running == 3 and engine.waiting == 2 and engine.used_slots == 4
    run(engine)
    counts = engine.counts
    assert (counts.submitted, counts.prompt, counts.fed, counts.generated) == (5, 25, 25, 10)
    assert counts.finished == {"length": 5} and counts.feeds == 10 and engine.used_slots == 0
