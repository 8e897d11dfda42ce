"""Generation on ids: reasons to end, batches, seeds, streaming, bad prompts."""

from __future__ import annotations

import pytest

from pangu_alpha.config.generate import SamplingConfig

END, CONTEXT, VOCAB = 9, 64, 97
GREEDY = SamplingConfig(greedy=True, max_new_tokens=6)
DRAWN = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=12)
PROMPTS = [[20, 21, 22], [30], [40, END, 41, 42, 43], [50, 51]]


@pytest.fixture(scope="module")
def make(build_model):
    """Makes a generator; all are of equal weights."""
    from pangu_alpha.inference.generate import Generator

    def build(batch_size, **options):
        return Generator(build_model(), END, batch_size, CONTEXT, **options)

    return build


@pytest.fixture(scope="module")
def pair(make):
    """Two rows, and no end-of-document but by the tests' own doing."""
    return make(2, banned=[6, 7])


def test_greedy_takes_the_likeliest_of_the_full_pass(pair, build_model, full_logits):
    model = build_model()
    found = pair.generate([PROMPTS[0]], SamplingConfig(greedy=True, max_new_tokens=3))[0].ids
    for count, token in enumerate(found):
        logits = full_logits(model, [[*PROMPTS[0], *found[:count]]])[0, len(PROMPTS[0]) + count - 1]
        logits[[6, 7]] = -1e9
        assert token == logits.argmax()


def test_alone_or_together_is_the_same(pair, make):
    together = pair.generate(PROMPTS, DRAWN)
    assert [pair.generate([prompt], DRAWN)[0] for prompt in PROMPTS] == together
    assert make(1, banned=[6, 7]).generate(PROMPTS[:2], DRAWN) == together[:2]
    assert all(row.reason in ("length", "stop") for row in together)


def test_copies_of_a_prompt_are_different_samples(pair):
    first, second, other = pair.generate([[20, 21], [20, 21], [33]], DRAWN)
    assert first.ids != second.ids
    assert pair.generate([[20, 21]], DRAWN) == [first]
    assert pair.generate([[33]], DRAWN) == [other]


def test_graphs_are_as_many_whatever_is_asked(pair):
    pair.generate([[20, 21], [20, 21]], GREEDY)
    for length in (1, 5, 17, 40, 60):
        pair.generate([list(range(10, 10 + length))], GREEDY)
    by_graph = [] if pair.decoder.model.operators.token_kernel else ["step"]
    assert sorted(pair.decoder.graphs) == ["copy", "feed 32", "feed 64", "score 1", *by_graph]


def test_reasons(pair):
    free = pair.generate([[20]], GREEDY)[0]
    assert free.reason == "length" and len(free.ids) == 6
    full = pair.generate([[20] * (CONTEXT - 2)], GREEDY)[0]
    assert full.reason == "context" and len(full.ids) == 3  # the last one needs no place
    brim = pair.generate([[20] * CONTEXT], GREEDY)[0]
    assert brim.reason == "context" and len(brim.ids) == 1


def test_the_end_of_a_document_ends_a_continuation_and_is_not_given_out(make):
    everything = set(range(VOCAB)) - {END}
    generator = make(1, banned=everything)
    assert list(generator.stream([[20]], GREEDY)) == [(0, None, "stop")]


def test_tokens_come_one_by_one_and_a_callback_ends_them(pair):
    seen = []

    def finished(prompt, ids):
        seen.append((prompt, tuple(ids)))
        return prompt == 0 and len(ids) == 2

    events = list(pair.stream(PROMPTS[:2], GREEDY, finished))
    tokens = {
        prompt: [e.token for e in events if e.prompt == prompt and e.token is not None] for prompt in (0, 1)
    }
    assert [len(tokens[0]), len(tokens[1])] == [2, 6]
    assert [event[::2] for event in events if event.reason] == [(0, "stop"), (1, "length")]
    assert seen[-1] == (1, tuple(tokens[1]))
    assert [event.prompt for event in events[:2]] == [0, 1]  # rows advance together


def test_all_bad_prompts_are_named_before_anything_is_computed(pair):
    with pytest.raises(ValueError) as error:
        pair.stream([[], [20], [20] * (CONTEXT + 1), [VOCAB], [-1]], GREEDY)
    lines = str(error.value).split("\n")
    assert len(lines) == 4
    assert "prompt 0: empty" in lines[0]
    assert f"prompt 2: {CONTEXT + 1} tokens, but the context holds {CONTEXT}" in lines[1]
    assert "prompt 3: holds ids outside" in lines[2]
