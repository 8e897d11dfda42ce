"""A decoder whose logits show how each id was computed: exact requests never see another way than alone.

Ids of a prompt that are fed from a border of chunks on have the same bits always; ids that steps computed, or
feeds that begin elsewhere, have other roundings. Here the roundings are large.
"""

from __future__ import annotations

import random

import pytest
from fake_decoder import FakeDecoder

from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.inference.engine.requests import Finished, PromptScores, Request, Token
from pangu_alpha.inference.engine.scheduler import Engine

STOP = 0


class RoundingDecoder(FakeDecoder):
    """Multiplies logits by a number that grows with every id of the row that was not fed in whole chunks."""

    def __init__(self, **shape) -> None:
        super().__init__(**shape)
        self.roundings = [[] for _ in self.texts]  # of each id

    def score(self, row, ids, start):
        lines = super().score(row, ids, start)
        way = 0.0 if start % self.chunk == 0 else 0.3
        self.roundings[row] = [*self.roundings[row][:start], *[way] * len(ids)]
        return lines * (1 + sum(self.roundings[row]))

    def step(self, tokens, active):
        logits = super().step(tokens, active)
        for row in range(self.rows):
            if active[row]:
                self.roundings[row].append(0.1)
                logits[row] *= 1 + sum(self.roundings[row])
        return logits

    def copy(self, source, row, length):
        super().copy(source, row, length)
        self.roundings[row] = self.roundings[source][:length]


def results(engine, numbers):
    """Of each request: its samples' ids, their reasons, and the scores of the prompt."""
    found = {number: ({}, {}, []) for number in numbers}
    while engine.busy:
        for event in engine.tick():
            ids, reasons, scores = found[event.request]
            if isinstance(event, Token):
                ids.setdefault(event.sample, []).append((event.token, event.score))
            elif isinstance(event, Finished):
                reasons[event.sample] = event.reason
            elif isinstance(event, PromptScores):
                scores += event.scores
    return found


def shortened(result, top):
    """A result whose prompt's scores have no more than the wanted likeliest ids."""
    ids, reasons, scores = result
    return ids, reasons, [score._replace(top=score.top[: top or 0]) for score in scores]


def drawn_request(rng, texts):
    """Mostly one that goes on where one of the latest texts ended, or somewhere in it."""
    begin = rng.choice(texts[-4:])
    kept = len(begin) if rng.random() < 0.7 else rng.randrange(len(begin) + 1)
    prompt = (*begin[:kept], *(rng.randrange(1, 13) for _ in range(rng.randrange(1, 4))))[:20]
    return Request(
        prompt,
        SamplingConfig(temperature=1.0, top_p=1.0, seed=rng.randrange(3)),
        rng.choice([0, 0, 1, 3, 5]),
        samples=rng.choice([1, 1, 1, 3]),
        logprobs=1,
        prompt_logprobs=rng.choice([None, None, 0, 2]),
        key=rng.choice("aaab"),
        exact=rng.random() < 0.5,
    )


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_exact_requests_give_what_they_give_alone_whatever_conversations_left_behind(first):
    hits = 0
    for seed in range(first, first + 10):
        rng = random.Random(seed)
        shape = {"rows": rng.randrange(1, 4), "pinned": 1, "seed": seed}
        engine = Engine(RoundingDecoder(**shape), {STOP})
        texts = [tuple(rng.randrange(1, 13) for _ in range(9)) for _ in range(2)]
        engine.pin(texts[0])
        for _ in range(20):
            if rng.random() < 0.3:
                texts.append(tuple(rng.randrange(1, 13) for _ in range(rng.randrange(1, 9))))
            requests = [drawn_request(rng, texts) for _ in range(rng.choice([1, 1, 3]))]
            numbers = [engine.submit(request) for request in requests]
            found = results(engine, numbers)
            for number, request in zip(numbers, requests, strict=True):
                texts.append((*request.prompt, *(token for token, _ in found[number][0].get(0, []))))
                if request.exact:
                    fresh = Engine(RoundingDecoder(**shape), {STOP})
                    alone = results(fresh, [fresh.submit(request)])[0]
                    assert shortened(found[number], request.prompt_logprobs) == alone
        hits += engine.counts.cached
    assert hits > 300


@pytest.fixture
def engine():
    """Two rows, chunks of 4."""
    return Engine(RoundingDecoder(rows=2), ())


def ask(prompt, new=2, **options):
    """A request whose results show every rounding."""
    sampling = SamplingConfig(temperature=1.0, top_p=1.0)
    return Request(tuple(prompt), sampling, new, **{"logprobs": 1, "prompt_logprobs": None, **options})


def ids_of(engine, request):
    """The new ids of a request that nothing runs beside."""
    return [token for token, _ in results(engine, [engine.submit(request)]).popitem()[1][0].get(0, [])]


def assert_as_alone(engine, request):
    fresh = Engine(RoundingDecoder(rows=2), ())
    assert (
        results(engine, [engine.submit(request)]).popitem()[1]
        == (results(fresh, [fresh.submit(request)]).popitem()[1])
    )


def test_a_feed_that_began_within_a_chunk_is_not_used_again(engine):
    ids_of(engine, ask(range(1, 8), 0))
    ids_of(engine, ask(range(1, 11), 0, exact=False))  # from the eighth id on
    assert engine.counts.cached == 7
    assert_as_alone(engine, ask(range(1, 13)))


def test_what_was_fed_behind_generated_ids_is_not_used_again(engine):
    prompt = range(1, 7)
    turn = (*prompt, *ids_of(engine, ask(prompt, 3))[:2])
    assert len(turn) == 8  # the border of a chunk
    ids_of(engine, ask((*turn, 1, 2, 3, 4, 5), 0, exact=False))
    assert engine.counts.cached == 8
    assert_as_alone(engine, ask((*turn, 1, 2, 3, 4, 5, 6)))


def test_copied_ids_are_as_exact_as_where_they_come_from(engine):
    prompt = range(1, 7)
    number = engine.submit(ask(prompt, 18))
    events = [event for _ in range(12) for event in engine.tick()]
    turn = (*prompt, *(event.token for event in events if isinstance(event, Token)))[:12]
    other = engine.submit(ask((*turn, 1), 0, exact=False))  # while the first one holds its row
    engine.tick()
    assert engine.counts.cached == 12
    results(engine, [number, other])
    assert_as_alone(engine, ask((*turn, 1, 2)))


def test_a_copy_has_no_scores_of_what_its_row_held_before(engine):
    head = range(1, 10)
    ids_of(engine, ask([12] * 9, 0, prompt_logprobs=1))
    number = engine.submit(ask(head, 12))
    for _ in range(5):
        engine.tick()
    other = engine.submit(ask((*head, 5), 0))
    engine.tick()
    assert engine.counts.cached == 8 and engine.decoder.copies == [(1, 0, 8)]
    results(engine, [number, other])
    assert_as_alone(engine, ask((*head, 5, 6), 0, prompt_logprobs=1))
