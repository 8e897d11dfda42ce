"""The engine over a tiny network: the same bits whatever else runs or is cached, and no new graphs."""

from __future__ import annotations

import gc
import random

import numpy as np
import psutil
import pytest

from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.inference.engine.requests import PromptScores, Request, Started, Token
from pangu_alpha.inference.engine.scheduler import Engine

VOCAB, END = 97, 9
GRAPHS = {"clear", "copy", "feed 32", "feed 64", "score 1", "score 32", "score 64", "step"}
DRAWN = SamplingConfig(temperature=1.0, top_p=0.95, seed=5)


@pytest.fixture(scope="module")
def decoder(build_model):
    """Three rows and a pinned one of 200 slots, with every logit that it gave."""
    from pangu_alpha.inference.decoder import Decoder

    decoder = Decoder(build_model(seq_length=200), END, rows=3, pinned=1)
    decoder.warm_up()
    return decoder


def ask(prompt, count=12, **options):
    """A request that does not stop by itself."""
    return Request(tuple(prompt), DRAWN, count, **{"logit_bias": {END: -100.0}, "logprobs": 2, **options})


def ids(count, seed):
    """Random ids without the end of a document."""
    return tuple(random.Random(seed).randrange(10, VOCAB) for _ in range(count))


def run(engine, *requests, meanwhile=()):
    """(cached, tokens with their scores, scores of the prompt) of each request."""
    for each in meanwhile:
        engine.submit(each)
        engine.tick()
    numbers = [engine.submit(request) for request in requests]
    events = []
    while engine.busy:
        events += engine.tick()
    return [
        (
            [e.cached for e in events if isinstance(e, Started) and e.request == n],
            [(e.sample, e.token, e.score) for e in events if isinstance(e, Token) and e.request == n],
            [e.scores for e in events if isinstance(e, PromptScores) and e.request == n],
        )
        for n in numbers
    ]


HEAD = ids(150, 1)
PROMPTS = [(*HEAD, 11, 12), HEAD[:130], ids(20, 2), (*ids(70, 3), END, *ids(30, 4)), ids(64, 5)]


@pytest.fixture(scope="module")
def alone(decoder):
    """Each prompt in a decoder that holds nothing else."""
    return [run(Engine(decoder, {END}), ask(prompt))[0] for prompt in PROMPTS]


def test_hit_and_miss_and_neighbours_give_the_same_bits(decoder, alone):
    """Scores are functions of all logits of a row, in float64: equal scores are equal bits."""
    engine = Engine(decoder, {END})
    assert engine.pin((*HEAD[:64], 1, 2)) == 64
    hits = []
    for turn in range(3):
        order = [(turn + place) % len(PROMPTS) for place in range(len(PROMPTS))]
        others = [ask(ids(90, 10 + turn + n), 30) for n in range(2)]
        found = run(engine, *(ask(PROMPTS[n]) for n in order), meanwhile=others)
        for n, (cached, tokens, _) in zip(order, found, strict=True):
            assert tokens == alone[n][1]
            hits += cached
    assert {0, 64, 128} <= {*hits}


def test_samples_have_the_same_bits_as_requests_of_their_own(decoder):
    engine = Engine(decoder, {END})
    (_, together, _) = run(engine, ask(PROMPTS[3], samples=4))[0]
    for sample in range(4):
        (_, single, _) = run(Engine(decoder, {END}), ask(PROMPTS[3], first_sample=sample))[0]
        assert [each for each in together if each[0] == sample] == single
    assert len({tuple(token for number, token, _ in together if number == n) for n in range(4)}) == 4


def test_scored_prompts_are_the_full_pass_and_the_same_from_the_cache(decoder, build_model, full_logits):
    engine, prompt = Engine(decoder, {END}), PROMPTS[3]
    (_, tokens, (scores,)) = run(engine, ask(prompt, prompt_logprobs=3))[0]
    assert tokens == run(Engine(decoder, {END}), ask(prompt))[0][1]
    full = full_logits(build_model(seq_length=200), [prompt])[0].astype(np.float64)
    exact = full - np.log(np.exp(full).sum(-1, keepdims=True))
    assert [score.token for score in scores] == [*prompt[1:]]
    found = [score.logprob for score in scores]
    np.testing.assert_allclose(found, exact[np.arange(len(scores)), prompt[1:]], atol=1e-4)
    cached, again, (same,) = run(engine, ask(prompt, prompt_logprobs=3))[0]
    assert cached == [64] and same == scores and again == tokens


def graphs(decoder):
    """Where a kernel computes a token, no graph does."""
    return GRAPHS - {"step"} if decoder.model.operators.token_kernel else GRAPHS


def submit_any(engine, rng, number):
    """A request with or without a cached prefix, of few or many samples, scored or not."""
    prompt = (HEAD[: rng.randrange(140)] if number % 3 else ()) + ids(rng.randrange(1, 40), number)
    samples, scores = 1 + (number % 50 == 0), 1 if number % 40 == 0 else None
    return engine.submit(
        ask(prompt, rng.randrange(3), samples=samples, logprobs=None, prompt_logprobs=scores)
    )


def test_no_graph_is_compiled_for_any_of_500_requests(decoder, capsys):
    before = {*decoder.graphs}
    engine, rng = Engine(decoder, {END}), random.Random(7)
    for number in range(500):
        submit_any(engine, rng, number)
        engine.tick()
    while engine.busy:
        engine.tick()
    print(f"{len(decoder.graphs)} graphs: {', '.join(decoder.graphs)}")
    assert {*decoder.graphs} == before == graphs(decoder) and len(decoder.graphs) == len(before)
    assert engine.counts.finished.total() == 510 and engine.counts.cached > 5000


@pytest.mark.long
def test_graphs_and_memory_stay_the_same_over_10_000_requests(decoder, capsys):
    """Some are cancelled, and every thousandth row is cleared as if its logits were not finite."""
    before, process = {*decoder.graphs}, psutil.Process()
    engine, rng, sizes = Engine(decoder, {END}), random.Random(8), []
    for number in range(10_000):
        last = submit_any(engine, rng, number)
        if number % 7 == 0:
            engine.cancel(last - rng.randrange(3))
        if number % 1000 == 999:
            while engine.busy:
                engine.tick()
            decoder.clear(number // 1000 % 3)
            engine._rows.held[number // 1000 % 3].keep(0)
            gc.collect()
            sizes.append(process.memory_info().rss)
        while engine.waiting > 4:
            engine.tick()
    megabytes = [round(size / 1e6, 1) for size in sizes]
    with capsys.disabled():
        print(f"\n{len(decoder.graphs)} graphs: {', '.join(decoder.graphs)}; resident MB: {megabytes}")
    assert {*decoder.graphs} == before == graphs(decoder) and len(decoder.graphs) == len(before)
    assert engine.counts.submitted == 10_000 and not engine.busy and engine.counts.finished["cancelled"] > 500
    assert max(megabytes[2:]) - min(megabytes[2:]) < 8


def test_a_conversation_computes_its_new_ids_only(build_model, vocabulary):
    from pangu_alpha.inference.generate import Generator
    from pangu_alpha.inference.text import Conversation, TextGenerator
    from pangu_alpha.text.tokenizer import PanguTokenizer

    tokenizer = PanguTokenizer(vocabulary)
    banned = tokenizer.control_ids - {tokenizer.eod_id}
    generator = Generator(build_model(vocab_size=60), tokenizer.eod_id, 1, 96, banned)
    conversation = Conversation(TextGenerator(generator, tokenizer), SamplingConfig(max_new_tokens=8, seed=2))
    counts, before = generator.engine.counts, []
    for line in ("天下大势", "分久必合", "合久必分，七国"):
        fed, held = counts.fed, len(conversation.ids)
        text = "".join(piece.text for piece in conversation.turn(line))
        new = tokenizer.encode(f"\n{line}" if held else line)
        # The last id of the answer before was given out, but never computed.
        assert counts.fed - fed == len(new) + bool(held)
        assert conversation.ids[: len(before)] == before
        assert tokenizer.decode(conversation.ids[held + len(new) :]) == text
        before = [*conversation.ids]
    fresh = Conversation(TextGenerator(generator, tokenizer), SamplingConfig(max_new_tokens=8, seed=2))
    assert [*fresh.turn("天下大势")][-1].reason and fresh.ids == before[: len(fresh.ids)]
