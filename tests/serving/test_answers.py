"""OpenAI's JSON: the vectors of the interface, twin texts, and no infinity."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from pangu_alpha.serving.scenarios import shipped_scenarios
from pangu_alpha.serving.wire.answers import Answers, Usage, event, to_json
from pangu_alpha.serving.wire.catalog import Catalog
from pangu_alpha.serving.wire.choices import LEAST, Choice, Piece, prompt_piece
from pangu_alpha.serving.wire.errors import ApiError
from pangu_alpha.serving.wire.fields import ChatFields, CompletionFields
from pangu_alpha.serving.wire.requests import read_generation


def answers(facts, cls=CompletionFields, **body):
    given = {"model": "pangu", **body}
    if cls is ChatFields:
        given.setdefault("messages", [{"role": "user", "content": "你好"}])
    found = read_generation(cls, given, Catalog("pangu", shipped_scenarios(), 1), facts)
    return Answers(found, facts, "cmpl-1", 1, "print")


def piece(facts, tokens, reason=None):
    """A piece of (id, logprob, top)."""
    choice = Choice(facts)
    found = Piece()
    for token in tokens:
        found = found.joined(choice.add(*token))
    return found.joined(choice.end(reason)) if reason else found


def test_the_vector_of_an_echo_with_logprobs(released_facts):
    facts = released_facts
    ids = facts.encode("中国的首都是")
    scores = [(-float(place), ((96, -0.5), (11, -1.0), (40, -1.5))) for place in range(1, len(ids))]
    made = answers(facts, prompt="中国的首都是", max_tokens=0, echo=True, logprobs=2)
    whole = made.whole([prompt_piece(ids, facts, scores, "x").joined(Piece(reason="length"))], Usage(4, 0, 0))
    assert whole.keys() == {
        "id", "object", "created", "model", "system_fingerprint", "choices", "usage", "x_seed"
    }  # fmt: skip
    (choice,) = whole["choices"]
    assert choice.keys() == {"index", "text", "logprobs", "finish_reason", "stop_reason"}
    assert choice["text"] == "中国的首都是" and choice["finish_reason"] == "length"
    assert choice["logprobs"]["tokens"] == ["中国", "的", "首都", "是"]
    assert choice["logprobs"]["token_logprobs"] == [None, -1.0, -2.0, -3.0]
    assert choice["logprobs"]["text_offset"] == [0, 2, 3, 5]
    top = choice["logprobs"]["top_logprobs"]
    assert top[0] is None and [len(each) for each in top[1:]] == [2, 3, 3]  # 的 is one of the two likeliest
    assert whole["usage"] == {
        "prompt_tokens": 4, "completion_tokens": 0, "total_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 0},
    }  # fmt: skip


def test_the_vector_of_a_chat_stream(released_facts):
    made = answers(released_facts, ChatFields, stream=True, stream_options={"include_usage": True})
    you, good = released_facts.encode("你")[0], released_facts.encode("好")[0]
    choice = Choice(released_facts)
    lines = [
        made.first_chunk(0),
        made.chunk(0, choice.add(you)),
        made.chunk(0, choice.add(good).joined(choice.end("length"))),
        made.usage_chunk(Usage(3, 2, 0)),
    ]
    assert all(line.startswith(b"data: {") and line.endswith(b"}\n\n") for line in lines)
    chunks = [json.loads(line[6:]) for line in lines]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "你"}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "好"}, "finish_reason": "length", "stop_reason": None}],
        [],
    ]
    assert [("usage" in chunk) for chunk in chunks] == [False, False, False, True]
    assert chunks[3]["usage"]["total_tokens"] == 5


def test_a_chat_names_the_bytes_of_a_token(facts):
    token = next(n for n in range(105) if facts.text_of(n) == "操")
    made = answers(facts, ChatFields, logprobs=True, top_logprobs=1)
    top = ((token, -0.25), (facts.end_of_document, -2.0))
    whole = made.whole([piece(facts, [(token, -0.25, top)], "stop")], Usage(1, 1, 0))
    (choice,) = whole["choices"]
    assert choice["message"] == {"role": "assistant", "content": "操"}
    entry = {"token": "操", "logprob": -0.25, "bytes": [*"操".encode()]}
    assert choice["logprobs"] == {"content": [{**entry, "top_logprobs": [entry]}]}
    assert choice["finish_reason"] == "stop" and choice["stop_reason"] is None


def twins(facts):
    """Ids of the released vocabulary by their text, where a text has several."""
    found: dict[str, list[int]] = {}
    for token in range(facts.tokenizer.vocab_size):
        found.setdefault(facts.text_of(token), []).append(token)
    return {text: ids for text, ids in found.items() if len(ids) > 1}


def test_twin_texts_never_lose_an_entry(released_facts):
    """Every text with two ids: the larger value stays, and there are as many texts as asked for."""
    facts = released_facts
    pairs = twins(facts)
    assert sum(map(len, pairs.values())) == 12737 and facts.twins == 2
    others = [token for token in range(facts.tokenizer.vocab_size) if facts.text_of(token) not in pairs]
    made = answers(facts, prompt="a", logprobs=5)
    for text, (first, second, *_) in pairs.items():
        top = [(second, -0.1), (first, -0.2)] + [(token, -1.0 - n) for n, token in enumerate(others[:8])]
        whole = made.whole([piece(facts, [(first, -0.2, top)], "stop")], Usage(1, 1, 0))
        logprobs = whole["choices"][0]["logprobs"]
        (found,) = logprobs["top_logprobs"]
        assert len(found) == 5 and found[text] == -0.1 == max(found.values())
        assert logprobs["tokens"] == [text] and logprobs["token_logprobs"] == [-0.2]


def test_the_chosen_token_is_there_if_it_is_unlikely(released_facts):
    top = tuple((token, -0.1 * token) for token in range(100, 120))
    made = answers(released_facts, prompt="a", logprobs=3)
    found = made.whole([piece(released_facts, [(96, -9.0, top)], "stop")], Usage(1, 1, 0))
    (entries,) = found["choices"][0]["logprobs"]["top_logprobs"]
    assert len(entries) == 4 and entries["中国"] == -9.0


def test_tokens_by_their_ids(released_facts):
    top = tuple((token, -0.1 * token) for token in (13, 96, 20))
    made = answers(released_facts, prompt="a", logprobs=2, return_tokens_as_token_ids=True)
    found = made.whole([piece(released_facts, [(96, -9.6, top)], "stop")], Usage(1, 1, 0))["choices"][0]
    assert found["text"] == "中国" and found["logprobs"]["tokens"] == ["token_id:96"]
    assert found["logprobs"]["top_logprobs"] == [{"token_id:13": -1.3, "token_id:96": pytest.approx(-9.6)}]


def test_no_infinity_is_ever_written(facts):
    made = answers(facts, prompt="曹操", logprobs=2)
    top = ((30, -math.inf), (31, -1e30))
    text = to_json(made.whole([piece(facts, [(30, -math.inf, top)], "stop")], Usage(1, 1, 0)))
    logprobs = json.loads(text, parse_constant=pytest.fail)["choices"][0]["logprobs"]
    assert logprobs["token_logprobs"] == [LEAST]
    assert set(logprobs["top_logprobs"][0].values()) == {LEAST}
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"a": math.nan})


def test_offsets_of_the_whole_text(facts):
    ids = facts.encode("曹操引兵，次日")
    found = piece(facts, [(token, -1.0, ()) for token in ids], "length")
    assert "".join(shown.text for shown in found.tokens) == found.text == facts.decode(ids)
    for shown in found.tokens:
        assert found.text[shown.offset :].startswith(shown.text)


def test_logprobs_0_reports_the_chosen_token_alone(facts):
    made = answers(facts, prompt="曹操", logprobs=0)
    found = made.whole([piece(facts, [(30, -1.0, ())], "length")], Usage(1, 1, 0))["choices"][0]["logprobs"]
    assert found["token_logprobs"] == [-1.0] and found["top_logprobs"] is None


def test_errors_have_the_form_of_openai():
    error = ApiError(429, "busy", "queue_full", retry_after=1.4)
    assert error.json() == {
        "error": {"message": "busy", "type": "rate_limit_error", "param": None, "code": "queue_full"}
    }
    assert error.headers == {"Retry-After": "1"}
    assert ApiError(500, "x").headers == {"x-should-retry": "false"} and ApiError(400, "x").headers == {}
    assert event({"a": "中"}) == 'data: {"a":"中"}\n\n'.encode()


def test_reasons_are_the_two_that_clients_know(facts):
    made = answers(facts, prompt="曹操")
    for reason, word in (("stop", "stop"), ("length", "length"), ("context", "length")):
        (choice,) = made.whole([dataclasses.replace(Piece(), reason=reason)], Usage(1, 0, 0))["choices"]
        assert choice["finish_reason"] == word
