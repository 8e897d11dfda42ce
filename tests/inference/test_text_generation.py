"""From text to text: pieces that never change, stop texts, prompts that need a warning or an error."""

from __future__ import annotations

import logging

import pytest

from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.text.tokenizer import PanguTokenizer

DRAWN = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=10)


@pytest.fixture(scope="module")
def tokenizer(vocabulary):
    """The small vocabulary's tokenizer."""
    return PanguTokenizer(vocabulary)


@pytest.fixture(scope="module")
def generator(run_folder):
    """Two rows, 64 slots."""
    from pangu_alpha.inference.load import load_for_inference

    return load_for_inference(run_folder).text_generator(2, 64)


@pytest.fixture
def growing(tokenizer):
    """Feeds ids one by one and returns the pieces given out."""
    from pangu_alpha.text.growing import GrowingText

    def feed(text, stop=()):
        ids = tokenizer.encode(text)
        grown = GrowingText(tokenizer, stop)
        pieces = []
        for count in range(1, len(ids) + 1):
            grown.update(ids[:count])
            pieces.append(grown.take())
            if grown.stopped:
                return pieces
        return [*pieces, grown.take(final=True)]

    return feed


def test_pieces_put_together_are_the_text(growing, tokenizer):
    text = "天下 大势\n\n分久必合,  合久必分。 "
    assert "".join(growing(text)) == tokenizer.decode(tokenizer.encode(text)) == text


def test_a_stop_text_and_its_beginnings_are_held_back(growing):
    pieces = growing("天下。,大势。,分久", stop=("。,分", "秦秦"))
    assert "".join(pieces) == "天下。,大势"
    assert not any(piece.endswith("。") for piece in pieces)
    assert "".join(growing("天下。,", stop=("。,分",))) == "天下。,"  # the beginning alone is text


def test_bytes_that_are_no_character_yet_wait():
    from pangu_alpha.text.growing import GrowingText

    class Halves:
        additive = False

        def decode(self, ids):
            return {1: "天\ufffd", 2: "天下", 3: "天下\ufffd"}[len(ids)]

    grown = GrowingText(Halves())
    taken = []
    for count in (1, 2, 3):
        grown.update([0] * count)
        taken.append(grown.take())
    assert [*taken, grown.take(final=True)] == ["天", "下", "", "\ufffd"]


def test_streams_of_several_prompts_are_their_completions(generator):
    prompts = ["天下大势", "分久必合，合久必分", "楚"]
    completions = generator.complete(prompts, DRAWN)
    assert [c.prompt for c in completions] == prompts
    assert generator.complete(prompts[1:2], DRAWN) == completions[1:2]
    pieces = list(generator.stream(prompts, DRAWN))
    for number, completion in enumerate(completions):
        own = [piece for piece in pieces if piece.prompt == number]
        assert "".join(piece.text for piece in own) == completion.text
        assert own[-1].reason == completion.reason and all(piece.reason is None for piece in own[:-1])


def test_a_stop_text_ends_generation(generator):
    text = generator.complete(["天下"], DRAWN)[0].text
    stop = text[2]
    config = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=10, stop=(stop,))
    stopped = generator.complete(["天下"], config)[0]
    assert stopped.text == text[: text.index(stop)] and stopped.reason == "stop"


def test_stop_texts_take_the_vocabularys_form(generator, monkeypatch):
    config = SamplingConfig(greedy=True, max_new_tokens=10, stop=("，",))
    comma = generator.tokenizer.encode("天，")[-1]
    monkeypatch.setattr("pangu_alpha.inference.sampling.Sampler.__call__", lambda self, logits: comma)
    assert generator.complete(["天下"], config)[0] == ("天下", "", "stop")
    with pytest.raises(ValueError, match="cannot be generated"):
        generator.stream(["天下"], SamplingConfig(stop=("\t",)))


def test_neither_controls_nor_unknown_are_generated(generator, tokenizer):
    config = SamplingConfig(temperature=50.0, top_p=1.0, max_new_tokens=40)
    ids = [row.ids for row in generator.generator.generate([[20], [21], [22], [23]], config)]
    generated = {token for row in ids for token in row}
    assert generated and not generated & {tokenizer.unk_id, *tokenizer.control_ids}
    assert max(generated) < tokenizer.vocab_size  # the model has four ids more


def test_prompts_that_are_empty_or_too_long_are_refused(generator):
    with pytest.raises(ValueError, match="prompt 1: empty"):
        generator.stream(["天下", "", "天下"], DRAWN)
    with pytest.raises(ValueError, match=r"prompt 0: \d+ tokens, but the context holds 64.*truncate-left"):
        generator.stream(["天下大势分" * 40], DRAWN)


def test_truncation_on_demand_keeps_the_end(generator, caplog):
    long = "秦" * 50 + "天下大势分久必合" * 20
    cut = generator.complete([long], DRAWN, truncate_left=True)[0]
    assert cut.reason in ("length", "stop")
    assert "tokens are cut off" in caplog.text


def test_a_control_name_in_a_prompt_is_text_and_said_so(generator, tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        generator.complete(["天下<eod>"], DRAWN)
    assert "prompt 0: <eod> is read as plain text" in caplog.text
    assert tokenizer.eod_id not in tokenizer.encode("天下<eod>")


def test_only_unknown_characters_warn_and_generate(generator, caplog):
    completion = generator.complete(["🙂🙃"], DRAWN)[0]
    assert "prompt 0: all its characters are outside the vocabulary" in caplog.text
    assert completion.reason in ("length", "stop")
