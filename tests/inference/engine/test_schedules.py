"""1,000 random schedules against a reference without cleverness; 10,000 requests in constant memory."""

from __future__ import annotations

import gc
import random
import sys
from collections import deque
from dataclasses import dataclass, field

import pytest
from fake_decoder import DRAWN, Clock, FakeDecoder, alone

from pangu_alpha.inference.engine.requests import Finished, Limits, QueueFullError, Request, Started, Token
from pangu_alpha.inference.engine.scheduler import Engine

STOP = 0
LIMITS = Limits(requests=4, tokens=70)


@dataclass(eq=False)
class Sample:
    """Of the reference."""

    number: int
    sample: int
    request: Request
    born: float
    ids: list[int] = field(default_factory=list)
    reason: str = ""
    chunks: int = 0  # to be fed


class Reference:
    """Lists of samples, no cache, one sample a request; continuations come from the definition."""

    def __init__(self, decoder):
        self.decoder, self.waiting, self.running = decoder, [], []
        self.keys = deque()  # in turn

    def full(self, request):
        """Whether nobody may wait any more, when the free rows have been given out."""
        waiting, keys = [*self.waiting], deque(self.keys)
        free = self.decoder.rows - len(self.running)
        while waiting and free:
            free -= 1
            key = next(key for key in keys if any(each.request.key == key for each in waiting))
            waiting.remove(next(each for each in waiting if each.request.key == key))
            keys.rotate(-1 - keys.index(key))
        tokens = sum(each.request.tokens for each in waiting)
        return not free and (len(waiting) >= LIMITS.requests or tokens + request.tokens > LIMITS.tokens)

    def submit(self, number, request, now):
        self.waiting.append(Sample(number, 0, request, now))
        if request.key not in self.keys:
            self.keys.append(request.key)

    def cancel(self, number):
        self.waiting = [each for each in self.waiting if each.number != number]
        self.running = [each for each in self.running if each.number != number]

    def tick(self, now):
        events = []
        for each in sorted([*self.waiting, *self.running], key=lambda each: each.number):
            if each.request.timeout is not None and now >= each.born + each.request.timeout:
                self.cancel(each.number)
                events.append((each.number, "expired"))
        decoding = [each for each in self.running if not each.chunks]
        while self.waiting and len(self.running) < self.decoder.rows:
            while not any(each.request.key == self.keys[0] for each in self.waiting):
                self.keys.popleft()
            sample = next(each for each in self.waiting if each.request.key == self.keys[0])
            self.waiting.remove(sample)
            self.keys.rotate(-1)
            sample.chunks = -(-len(sample.request.prompt) // self.decoder.chunk)
            sample.ids, sample.reason = alone(self.decoder, sample.request, stop_ids={STOP})
            self.running.append(sample)
            events.append((sample.number, "started"))
        self.keys = deque(key for key in self.keys if any(each.request.key == key for each in self.waiting))
        prefill = next((each for each in self.running if each.chunks), None)
        if prefill:
            prefill.chunks -= 1
        for each in ([prefill] if prefill and not prefill.chunks else []) + decoding:
            if token := each.ids[:1]:
                events.append((each.number, each.ids.pop(0)))
            if not each.ids and (each.reason != "stop" or not token):  # a stop id is a choice of its own
                events.append((each.number, each.reason))
                self.running.remove(each)
        return events


def plain(events):
    """Events as the reference writes them."""
    what = {Started: lambda e: "started", Token: lambda e: e.token, Finished: lambda e: e.reason}
    return [(event.request, what[type(event)](event)) for event in events]


def check_rows(engine):
    """No row is lost, none is used twice."""
    used = [run.row for run in engine._runs]
    assert len({*used}) == len(used) and not engine._rows.idle & {*used}
    assert engine._rows.idle | {*used} == {*range(engine.decoder.rows)}
    texts = engine.decoder.texts
    for row, held in enumerate(engine._rows.held):
        assert texts[row][: len(held.text)] == held.text and held.fed <= len(held.text)
        if row in used:
            assert len(held.text) <= engine.decoder.context


def random_request(rng, first, keys="ab"):
    prompt = (first, *(rng.randrange(13) for _ in range(rng.randrange(12))))
    timeout = rng.choice([None, None, 3.0, 9.0])
    return Request(prompt, DRAWN, rng.randrange(12), key=rng.choice(keys), timeout=timeout)


@pytest.mark.parametrize("first", range(0, 500, 50))
def test_every_event_of_random_schedules_is_the_references(first):
    """Every prompt begins with an id of its own, so the cache has nothing for it."""
    for seed in range(first, first + 50):
        rng = random.Random(seed)
        decoder = FakeDecoder(rows=rng.randrange(1, 4), vocab_size=90, seed=seed)
        decoder.table[:, STOP] += 4
        clock = Clock()
        engine, reference = Engine(decoder, {STOP}, limits=LIMITS, clock=clock), Reference(decoder)
        numbers, refused = [], 0
        for step in range(60):
            clock.now += rng.choice([0.25, 1.0])
            if step < 40 and rng.random() < 0.6:
                request = random_request(rng, 20 + step)
                full = reference.full(request)
                try:
                    numbers.append(engine.submit(request))
                    reference.submit(numbers[-1], request, clock.now)
                    assert not full
                except QueueFullError:
                    refused += 1
                    assert full
            if numbers and rng.random() < 0.2:
                number = rng.choice(numbers)
                engine.cancel(number)
                reference.cancel(number)
            assert plain(engine.tick()) == reference.tick(clock.now)
            check_rows(engine)
            assert engine.running == len(reference.running) and engine.waiting == len(reference.waiting)
        while engine.busy:
            clock.now += 1.0
            assert plain(engine.tick()) == reference.tick(clock.now)
        assert not reference.waiting and not reference.running
        assert len(engine._rows.idle) == decoder.rows
        assert sum(engine.counts.finished.values()) == len(numbers) and refused == sum(
            engine.counts.rejected.values()
        )


@pytest.mark.parametrize("first", range(0, 500, 50))
def test_shared_beginnings_and_samples_change_nothing(first):
    """The same texts come from rows that begin with what others left there."""
    hits = 0
    for seed in range(first, first + 50):
        rng = random.Random(seed)
        decoder = FakeDecoder(rows=rng.randrange(1, 5), pinned=1, seed=seed)
        heads = [tuple(rng.randrange(1, 13) for _ in range(9)) for _ in range(3)]
        clock = Clock()
        engine = Engine(decoder, {STOP}, clock=clock)
        engine.pin(heads[0])
        asked, gone, found = {}, set(), {}
        for step in range(80):
            clock.now += 1.0
            if step < 60 and rng.random() < 0.5:
                prompt = rng.choice(heads)[: rng.randrange(1, 10)] + tuple(
                    rng.randrange(13) for _ in range(rng.randrange(4))
                )
                request = Request(
                    prompt,
                    DRAWN,
                    rng.randrange(10),
                    samples=rng.randrange(1, 5),
                    key=rng.choice("ab"),
                    prompt_logprobs=rng.choice([None, None, 0, 2]),
                    timeout=rng.choice([None, 30.0]),
                )
                asked[engine.submit(request)] = request
            if asked and rng.random() < 0.15:
                number, sample = rng.choice([*asked]), rng.choice([None, 0, 1])
                gone |= {(number, n) for n in range(4) if sample in (None, n)}
                engine.cancel(number, sample)
            collect(engine.tick(), found)
            check_rows(engine)
        while engine.busy:
            collect(engine.tick(), found)
            check_rows(engine)
        assert len(engine._rows.idle) == decoder.rows and not engine._queue.tokens
        for number, request in asked.items():
            for sample in range(request.samples):
                ids, reason = found.get((number, sample), ([], None))
                expected = alone(decoder, request, sample, {STOP})
                if reason in (None, "expired"):
                    assert reason or (number, sample) in gone
                    assert ids == expected[0][: len(ids)]
                else:
                    assert (ids, reason) == expected
        hits += engine.counts.cached
    assert hits > 1000


def collect(events, found):
    for event in events:
        if isinstance(event, Token):
            found.setdefault((event.request, event.sample), ([], None))[0].append(event.token)
        elif isinstance(event, Finished):
            ids, before = found.get((event.request, event.sample), ([], None))
            assert before is None
            found[event.request, event.sample] = (ids, event.reason)


def test_memory_stays_the_same_over_10_000_requests():
    decoder = FakeDecoder(rows=4, pinned=1)
    engine = Engine(decoder, {STOP}, limits=Limits(requests=8))
    rng, sizes, ended = random.Random(1), [], 0
    for number in range(10_000):
        request = random_request(rng, rng.randrange(13), keys=[str(number % 977)])
        while True:
            try:
                engine.submit(request)
                break
            except QueueFullError:
                ended += sum(isinstance(event, Finished) for event in engine.tick())
                decoder.fed.clear(), decoder.steps.clear(), decoder.copies.clear()
        if number % 1000 == 999:
            gc.collect()
            sizes.append((len(gc.get_objects()), sum(map(sys.getsizeof, vars(engine).values()))))
    while engine.busy:
        ended += sum(isinstance(event, Finished) for event in engine.tick())
    assert ended == 10_000
    objects, bytes_ = zip(*sizes[1:], strict=True)
    assert max(objects) - min(objects) < 300 and max(bytes_) - min(bytes_) < 2000, sizes
