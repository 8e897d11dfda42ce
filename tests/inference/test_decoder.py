"""Rows that are fed, stepped, scored and copied at any time equal the full pass, whatever others hold."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

VOCAB, CONTEXT, END = 97, 96, 9
FEEDING = {"feed 32", "score 32", "score 1", "clear", "feed 64", "score 64", "copy"}
GRAPHS = {*FEEDING, "step"}
TOLERANCE = 1e-4


def graphs(decoder):
    """Where a kernel computes a token, no graph does."""
    return FEEDING if decoder.model.operators.token_kernel else GRAPHS


def text(seed, length=CONTEXT):
    """Ids with documents that end first, doubled, on both sides of a chunk's border, and here and there."""
    ids = np.random.default_rng(seed).integers(10, VOCAB, CONTEXT)
    ids[[0, 20, 21, 63, 64, 5 + seed % 50, 70 + seed % 20]] = END
    return [int(each) for each in ids[:length]]


@pytest.fixture(params=["norm_then_query", "query_then_norm", "plain operators"])
def network(request, build_model):
    """Both orders of norm and query layer, and the operators of other devices."""
    if request.param == "plain operators":
        return build_model(device="plain")
    return build_model(norm_order=request.param)


@pytest.fixture(scope="module")
def decoder(build_model):
    """Three rows and a pinned one, shared by tests that begin their rows anew."""
    from pangu_alpha.inference.decoder import Decoder

    made = Decoder(build_model(), END, rows=3, pinned=1)
    yield made
    made.close()


def chunks(ids, size, start=0):
    """Ids that begin at a slot, divided at multiples of `size`: (first slot, its ids) of each part."""
    borders = [start, *range(start - start % size + size, start + len(ids), size), start + len(ids)]
    return [(a, ids[a - start : b - start]) for a, b in zip(borders, borders[1:], strict=False)]


def feed_all(decoder, row, ids, start=0):
    """Feeds ids chunk by chunk, and returns the last logits."""
    for first, part in chunks(ids, decoder.chunk, start):
        logits = decoder.feed(row, part, first)
    return logits


class Schedule:
    """A decoder used at random; every logits it gives are compared with the full pass.

    Args:
        texts: What rows hold is always the beginning of one of these.
        expected: The full pass of each, [n, C, V].
    """

    def __init__(self, decoder, texts, expected, random):
        self.decoder, self.texts, self.expected, self.random = decoder, texts, expected, random
        self.held = [0] * (decoder.rows + decoder.pinned)  # which text each row holds
        self.compared = np.zeros(len(texts), int)
        self.full = 0

    def same(self, text, place, logits):
        np.testing.assert_allclose(logits, self.expected[text, place], atol=TOLERANCE)
        self.compared[text] += np.size(place)

    def admit(self):
        """Feeds or scores a text to a row up to any place, after a prefix that it holds already."""
        row, which = (int(self.random.integers(n)) for n in (len(self.held), len(self.texts)))
        begin = 0
        if self.held[row] == which:
            begin = min(self.decoder.length(row), CONTEXT - 1) // 64 * 64
        end = int(self.random.integers(begin + 1, CONTEXT + 1))
        self.held[row] = which
        for start, part in chunks(self.texts[which][begin:end], 64, begin):
            if self.random.random() < 0.5:
                lines = self.decoder.score(row, part, start)
                self.same(which, np.arange(start, start + len(part)), lines)
            else:
                self.same(which, start + len(part) - 1, self.decoder.feed(row, part, start))

    def copy(self):
        """Copies whole chunks of a row."""
        source, row = self.random.integers(len(self.held), size=2)
        self.decoder.copy(int(source), int(row), self.decoder.length(int(source)) // 64 * 64)
        self.held[row] = self.held[source]

    def step(self):
        """Steps some of the rows that have room and hold something."""
        rows = range(self.decoder.rows)
        self.full += sum(not self.decoder.has_room(row) for row in rows)
        active = [self.decoder.has_room(row) and self.random.random() < 0.7 for row in rows]
        places = [self.decoder.length(row) for row in rows]
        tokens = [
            self.texts[self.held[row]][places[row]] if active[row] else int(self.random.integers(VOCAB))
            for row in rows
        ]
        logits = self.decoder.step(tokens, active)
        for row in rows:
            if active[row]:
                self.same(self.held[row], places[row], logits[row])


def test_any_schedule_equals_the_full_pass(network, full_logits):
    """Rows are admitted at any time, rest, are full, and continue what they or others held."""
    from pangu_alpha.inference.decoder import Decoder

    texts = [text(seed) for seed in range(3)]
    expected = full_logits(network, texts)
    assert np.abs(expected).max() > 1  # large enough for the tolerance to mean something
    random = np.random.default_rng(1)
    decoder = Decoder(network, END, rows=4, pinned=2)
    try:
        assert set(decoder.warm_up()) == GRAPHS
        assert sorted(decoder.graphs) == sorted(graphs(decoder))
        schedule = Schedule(decoder, texts, expected, random)
        for _ in range(400):
            draw = random.random()
            schedule.admit() if draw < 0.15 else schedule.copy() if draw < 0.2 else schedule.step()
        assert sorted(decoder.graphs) == sorted(graphs(decoder))
    finally:
        decoder.close()
    assert schedule.compared.min() > 300 and schedule.full > 20


def test_a_text_stepped_through_equals_the_full_pass(decoder, model, full_logits):
    """At every position of the context, beside rows that rest."""
    ids = text(7)
    expected = full_logits(model, [ids])[0]
    feed_all(decoder, 1, ids[:1])
    for place in range(1, CONTEXT):
        assert decoder.length(1) == place and decoder.has_room(1)
        logits = decoder.step([0, ids[place], END], [False, True, False])
        np.testing.assert_allclose(logits[1], expected[place], atol=TOLERANCE)
    assert not decoder.has_room(1)


def one_row(decoder, row, others):
    """All logits of a text that is fed and then stepped in a row; `others` is called between."""
    ids, found = text(4), []
    for start, part in chunks(ids[:70], 64):
        others()
        found.append(decoder.feed(row, part, start))
    for token in ids[70:90]:
        others()
        tokens = np.full(decoder.rows, token)
        found.append(decoder.step(tokens, np.arange(decoder.rows) == row)[row])
    return np.stack(found)


def test_a_row_gives_the_same_bits_alone_and_among_others_and_as_another_row(decoder):
    random = np.random.default_rng(2)
    alone = one_row(decoder, 1, lambda: None)

    def others():
        """Row 0 begins new texts, row 2 is fed, stepped and full; row 1 rests through all of it."""
        feed_all(decoder, 0, text(random.integers(50), random.integers(1, CONTEXT)))
        if not decoder.has_room(2):
            decoder.copy(0, 2, decoder.length(0) // 64 * 64)
        decoder.step(random.integers(0, VOCAB, 3), [decoder.has_room(0), False, decoder.has_room(2)])

    feed_all(decoder, 2, text(5, 80))
    assert np.array_equal(one_row(decoder, 1, others), alone)
    assert np.array_equal(one_row(decoder, 2, lambda: feed_all(decoder, 0, text(6))), alone)


@pytest.mark.parametrize(
    "length, borders", [(50, [30]), (50, [10]), (50, [5, 10]), (90, [64, 84]), (90, [30, 70])]
)
def test_a_text_fed_in_parts_gives_the_same_bits(decoder, length, borders):
    ids = text(11, length)
    whole = feed_all(decoder, 0, ids)
    for start, end in zip([0, *borders], [*borders, length], strict=True):
        parts = feed_all(decoder, 2, ids[start:end], start)
    assert np.array_equal(parts, whole)
    assert np.array_equal(next_step(decoder, 2), next_step(decoder, 0))  # so the keys are the same


def next_step(decoder, row):
    active = np.arange(decoder.rows) == row
    return decoder.step(np.full(decoder.rows, 33), active)[row]


def test_rows_that_are_stepped_together_get_the_bits_of_each_alone(model):
    """Any number of rows, in a step with fewer rows than the cache has."""
    from pangu_alpha.inference.decoder import Decoder

    texts, random = [text(30 + row, 20 + 5 * row) for row in range(12)], np.random.default_rng(4)
    decoder = Decoder(model, END, rows=12)
    try:
        alone = []
        for ids in texts:
            feed_all(decoder, 5, ids)
            alone.append(
                np.stack([decoder.step([token] * 12, np.arange(12) == 5)[5] for token in (11, 12, 13)])
            )
        for row, ids in enumerate(texts):
            feed_all(decoder, row, ids)
        steps = np.zeros(12, int)
        while (steps < 3).any():
            active = (steps < 3) & (random.random(12) < random.random())
            if active.any():
                logits = decoder.step(11 + steps, active)
            for row in np.flatnonzero(active):
                assert np.array_equal(logits[row], alone[row][steps[row]])
            steps += active
    finally:
        decoder.close()


def test_writing_is_feeding_without_logits(decoder):
    ids = text(22, 80)
    fed = feed_all(decoder, 0, ids)
    assert decoder.write(1, ids[:64], 0) is True and decoder.length(1) == 64
    assert np.array_equal(decoder.feed(1, ids[64:], 64), fed)
    decoder.write(2, ids[:64], 0)
    decoder.write(2, ids[64:], 64)
    assert np.array_equal(next_step(decoder, 2), next_step(decoder, 0))


@pytest.mark.parametrize("device", [None, "plain"])
def test_a_cleared_row_keeps_nothing_that_is_not_finite(build_model, device):
    """NaN in slots that nobody may attend to would reach every result of the row."""
    from pangu_alpha.inference.decoder import Decoder

    made = Decoder(build_model(device=device) if device else build_model(), END, rows=2)
    try:
        made.warm_up()
        clean = feed_all(made, 1, text(23, 30))
        others = next_step(made, 1)
        for cache in made.caches.cells:
            spoil(cache, 0)
        assert np.isnan(feed_all(made, 0, text(23, 30))).any()
        assert made.write(0, text(23, 30), 0) is False
        before = len(made.graphs)
        made.clear(0)
        assert made.length(0) == 0 and len(made.graphs) == before
        assert np.array_equal(feed_all(made, 0, text(23, 30)), clean)
        assert np.array_equal(next_step(made, 0), others)
        assert made.length(1) == 31  # the other row is as it was
        assert np.array_equal(made.feed(1, text(23, 31)[30:], 30), made.feed(0, text(23, 31)[30:], 30))
    finally:
        made.close()


def spoil(cache, row):
    """Writes NaN into all slots of a row of a cache, where it lies."""
    shape = cache.table.shape
    address = cache.table.data_ptr() + row * int(np.prod(shape[1:])) * 4
    cells = np.frombuffer((ctypes.c_char * (int(np.prod(shape[1:])) * 4)).from_address(address), np.float32)
    cells[:] = np.nan


def test_scoring_gives_the_bits_of_feeding(decoder):
    ids = text(12, 80)
    fed = feed_all(decoder, 0, ids)
    for start, part in chunks(ids, 64):
        lines = decoder.score(1, part, start)
        assert lines.shape == (len(part), VOCAB) and lines.dtype == np.float32
    assert np.array_equal(lines[-1], fed)
    assert np.array_equal(next_step(decoder, 1), next_step(decoder, 0))


def test_a_copied_prefix_gives_the_bits_of_a_fed_one(decoder):
    """Through the pinned row, into one that held something else, after which the source is overwritten."""
    ids = text(13, 90)
    fed = feed_all(decoder, 0, ids)
    feed_all(decoder, 3, ids[:64])
    feed_all(decoder, 1, text(14))
    decoder.copy(3, 1, 64)
    assert decoder.length(1) == 64
    feed_all(decoder, 3, text(15))
    assert np.array_equal(feed_all(decoder, 1, ids[64:], 64), fed)
    assert np.array_equal(next_step(decoder, 1), next_step(decoder, 0))


@pytest.mark.parametrize("length", [1, 21, 64, 70])
def test_a_prefix_of_any_length_is_copied(decoder, length):
    """Also while the source already continues behind it; the documents restart where they should."""
    ids = text(16, 80)
    fed = feed_all(decoder, 2, ids)
    decoder.copy(2, 3, length)
    assert decoder.length(3) == length
    assert np.array_equal(feed_all(decoder, 3, ids[length:], length), fed)


def test_what_lies_behind_the_start_is_forgotten(decoder):
    """A longer text in the same row leaves nothing that a shorter one could attend to."""
    feed_all(decoder, 0, text(17))
    alone = feed_all(decoder, 1, text(18, 40))
    assert np.array_equal(feed_all(decoder, 0, text(18, 40)), alone)
    assert decoder.length(0) == 40
    assert np.array_equal(next_step(decoder, 0), next_step(decoder, 1))


def test_no_use_compiles_anything_after_the_first(decoder):
    decoder.warm_up()
    random = np.random.default_rng(3)
    for _ in range(30):
        ids = text(random.integers(50), random.integers(1, CONTEXT))
        decoder.score(int(random.integers(4)), ids[:64], 0)
        feed_all(decoder, int(random.integers(4)), ids)
        decoder.copy(int(random.integers(4)), int(random.integers(4)), 0)
        decoder.step([3, 4, 5], [decoder.has_room(row) for row in range(3)])
    assert sorted(decoder.graphs) == sorted(graphs(decoder))
    assert sum(len(cell.compile_cache) for cell in decoder.cells.values()) == len(decoder.graphs)


def test_warming_up_changes_no_row(decoder):
    feed_all(decoder, 0, text(19, 30))
    expected = next_step(decoder, 0)
    feed_all(decoder, 0, text(19, 30))
    seconds = decoder.warm_up()
    assert set(seconds) == GRAPHS and min(seconds.values()) > 0
    assert np.array_equal(next_step(decoder, 0), expected)


@pytest.mark.parametrize("context", [5, 63, 64])
def test_a_context_may_be_smaller_than_a_chunk(model, full_logits, context):
    from pangu_alpha.inference.decoder import Decoder

    ids = text(20, context)
    expected = full_logits(model, [ids])[0]
    decoder = Decoder(model, END, rows=2, context=context)
    try:
        np.testing.assert_allclose(decoder.feed(1, ids[:-1], 0), expected[context - 2], atol=TOLERANCE)
        logits = decoder.step([0, ids[-1]], [False, True])
        np.testing.assert_allclose(logits[1], expected[context - 1], atol=TOLERANCE)
        assert not decoder.has_room(1)
        assert np.array_equal(decoder.score(0, ids, 0)[-1], decoder.feed(1, ids, 0))
        decoder.feed(0, ids[:3], 0)
        assert np.array_equal(decoder.feed(0, ids[3:], 3), decoder.feed(1, ids, 0))
    finally:
        decoder.close()


def test_misuse_is_refused_and_close_gives_the_model_back(build_model, monkeypatch):
    from pangu_alpha.inference import caches
    from pangu_alpha.inference.decoder import Decoder

    model = build_model()
    names = [name for name, _ in model.parameters_and_names()]
    with pytest.raises(ValueError, match="context: 97 .* 96"):
        Decoder(model, END, context=CONTEXT + 1)
    decoder = Decoder(model, END)
    with pytest.raises(ValueError, match="close the decoder"):
        Decoder(model, END)
    decoder.close()
    assert [name for name, _ in model.parameters_and_names()] == names
    monkeypatch.setattr(caches, "available_bytes", lambda: 10**6)
    needed = r"1\.19 MB \(3 layers x 2 x 16 rows x 97 slots x 32 numbers of 4 bytes\), but 1\.00 MB"
    with pytest.raises(ValueError, match=needed):
        Decoder(model, END, rows=8, pinned=8)
    monkeypatch.setattr(caches, "available_bytes", lambda: 1191936)
    Decoder(model, END, rows=8, pinned=8).close()


def test_mistakes_of_a_caller_are_found(decoder):
    feed_all(decoder, 0, text(21, 70))
    feed_all(decoder, 1, text(21))
    for work in (
        lambda: decoder.feed(0, [], 64),
        lambda: decoder.feed(0, [5], 71),  # beyond what it holds
        lambda: decoder.feed(0, [5] * 60, 10),  # across a border of chunks
        lambda: decoder.feed(1, [5] * 33, 64),  # beyond the context
        lambda: decoder.feed(4, [5], 0),
        lambda: decoder.step([5, 5, 5], [True, True, False]),  # row 1 is full
        lambda: decoder.copy(0, 2, 71),
    ):
        with pytest.raises(AssertionError):
            work()
    assert [decoder.length(row) for row in range(2)] == [70, CONTEXT]
