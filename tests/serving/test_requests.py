"""JSON bodies become validated requests; all that is wrong stands in one message."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pangu_alpha.serving.scenarios import shipped_scenarios
from pangu_alpha.serving.wire.catalog import Catalog
from pangu_alpha.serving.wire.errors import ApiError
from pangu_alpha.serving.wire.fields import ChatFields, CompletionFields, TokenizeFields
from pangu_alpha.serving.wire.requests import read_fields, read_generation

CATALOG = Catalog("pangu", shipped_scenarios(), 1)
HELLO = [{"role": "user", "content": "你好"}]


def completion(facts, **body):
    return read_generation(CompletionFields, {"model": "pangu", "prompt": "曹操", **body}, CATALOG, facts)


def chat(facts, model="pangu", **body):
    return read_generation(ChatFields, {"model": model, "messages": HELLO, **body}, CATALOG, facts)


def refusal(read, *arguments, **body) -> ApiError:
    with pytest.raises(ApiError) as error:
        read(*arguments, **body)
    return error.value


def test_defaults_are_those_of_openai(facts):
    found = completion(facts)
    assert found.max_tokens == 16 and found.n == found.samples == 1 and found.logprobs is None
    assert found.draws == {
        "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0,
        "frequency_penalty": 0.0, "presence_penalty": 0.0,
    }  # fmt: skip
    assert chat(facts).max_tokens == facts.context - len(chat(facts).prompts[0].ids)


def test_null_equals_absent_and_zero_does_not(facts):
    nulls = dict.fromkeys(["seed", "logprobs", "stop", "n", "temperature", "logit_bias", "user", "best_of"])
    assert completion(facts, **nulls).draws["temperature"] == 1.0
    assert completion(facts, temperature=0).draws["temperature"] == 0.0
    assert completion(facts, seed=0).seed == 0
    assert completion(facts, logprobs=0).logprobs == 0
    assert completion(facts, top_p=0).draws["temperature"] == 0.0


def test_seeds_are_fresh_and_javascript_can_hold_them(facts):
    seeds = {completion(facts).seed for _ in range(50)}
    assert len(seeds) == 50 and max(seeds) < 2**53


@pytest.mark.parametrize("prompt", ["曹操", ["曹操", "玄德"], [30, 31], [[30, 31], [32]]])
def test_prompts_are_text_or_ids_or_lists_of_them(facts, prompt):
    found = completion(facts, prompt=prompt).prompts
    if isinstance(prompt, str):
        assert found[0].text == prompt and found[0].ids == tuple(facts.encode(prompt))
    elif isinstance(prompt[0], str):
        assert [each.text for each in found] == prompt
    else:
        assert [list(each.ids) for each in found] == (prompt if isinstance(prompt[0], list) else [prompt])


def test_without_a_prompt_a_document_begins(facts):
    found = read_generation(CompletionFields, {"model": "pangu"}, CATALOG, facts)
    assert found.prompts[0].ids == (facts.end_of_document,)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"prompt": ""}, "prompt: empty"),
        ({"prompt": []}, "prompt: an empty list"),
        ({"prompt": ["曹操", ""]}, "prompt[1]: empty"),
        ({"prompt": [1, "a"]}, "prompt: expected a text or a list"),
        ({"prompt": [[1], [99999]]}, "prompt[1]: holds ids outside the vocabulary of 109"),
        ({"prompt": [-1]}, "outside the vocabulary"),
        ({"prompt": ["a"] * 257}, "257 prompts; at most 256"),
        ({"n": 5}, "n: 5 continuations at once; this server has 4 slots"),
        ({"n": 2, "best_of": 1}, "best_of: 1 is less than n = 2"),
        ({"best_of": 2, "stream": True}, "best_of: the likeliest are only known at the end"),
        ({"max_tokens": 0}, "max_tokens: 0 is only allowed with echo"),
        ({"max_tokens": -1}, "max_tokens: -1"),
        ({"max_tokens": True}, "max_tokens: expected a whole number, found True"),
        ({"max_tokens": 10**30}, "too large a number"),
        ({"temperature": 2.1}, "temperature: 2.1"),
        ({"temperature": 1e999}, "temperature: inf must be a finite number"),
        ({"top_p": -1}, "top_p: -1"),
        ({"logprobs": 21}, "logprobs: 21"),
        ({"stop": ["x"] * 17}, "stop: 17 texts; at most 16"),
        ({"stop": "x" * 65}, "stop: a text has more than 64 characters"),
        ({"stop": ["a", ""]}, "stop: holds an empty text"),
        ({"logit_bias": {"x": 1}}, "logit_bias: 'x' is no id"),
        ({"logit_bias": {"109": 1}}, "logit_bias: id 109 is outside the vocabulary of 109"),
        ({"logit_bias": {"5": 101}}, "logit_bias: a value lies outside"),
        ({"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias: 1025 entries"),
        ({"stream_options": {"include_usage": True}}, "stream_options: only allowed with stream"),
        ({"temprature": 1}, "temprature: unknown key; did you mean 'temperature'?"),
        ({"tools": [{"type": "function"}]}, "tools: this server has no such thing"),
        ({"response_format": {"type": "json_object"}}, "response_format: this server has no such thing"),
        ({"suffix": "x"}, "suffix: this server has no such thing"),
        ({"task": "couplet", "fields": {}}, "prompt: a task makes the prompt"),
        ({"fields": {"first": "x"}}, "fields: only with a task or a scenario"),
    ],
)
def test_what_cannot_be_served_is_refused_in_words(facts, body, words):
    error = refusal(completion, facts, **body)
    assert error.status == 400 and words in error.message, error.message
    assert error.json()["error"]["type"] == "invalid_request_error"


def test_all_problems_are_in_one_message_and_a_single_one_names_its_field(facts):
    error = refusal(completion, facts, top_p=3, temprature=1, tools=[1], n=9, stop=[""])
    for words in ("top_p: 3.0", "temprature: unknown", "tools: this server", "n: 9 contin", "stop: holds"):
        assert words in error.message
    assert error.param is None
    assert refusal(completion, facts, top_p=3).param == "top_p"


def test_fields_without_effect_are_accepted(facts):
    neutral = {
        "user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "suffix": "",
        "parallel_tool_calls": True, "repetition_penalty": 1.0, "response_format": {"type": "text"},
        "tools": [],
    }  # fmt: skip
    assert completion(facts, **neutral).max_tokens == 16


def test_unknown_fields_can_be_ignored(facts):
    body = {"model": "pangu", "prompt": "曹操", "temprature": 1}
    assert read_generation(CompletionFields, body, CATALOG, facts, ignore_unknown=True).n == 1


def test_the_context_is_refused_with_both_numbers(facts):
    error = refusal(completion, facts, prompt=[20] * 200, max_tokens=57)
    assert error.code == "context_length_exceeded" and error.param == "prompt"
    assert "256" in error.message and "200" in error.message and "257" in error.message
    assert error.facts == {"x_prompt_tokens": 200, "x_max_model_len": 256}
    assert completion(facts, prompt=[20] * 200, max_tokens=56).max_tokens == 56
    assert completion(facts, prompt=[20] * 256, max_tokens=0, echo=True).max_tokens == 0


def test_models_and_what_a_key_may_use(facts):
    error = refusal(completion, facts, model="pango")
    assert error.status == 404 and error.code == "model_not_found" and "did you mean 'pangu'" in error.message
    body = {"model": "pangu", "prompt": "曹操"}
    with pytest.raises(ApiError) as caught:
        read_generation(CompletionFields, body, CATALOG, facts, allowed=("doctor",))
    assert caught.value.status == 403 and "pangu/doctor" in caught.value.message
    assert [each["id"] for each in CATALOG.listed(facts, ("doctor",))] == ["pangu/doctor"]
    assert len(CATALOG.listed(facts)) == 1 + len(shipped_scenarios())


def test_a_task_makes_the_prompt_and_its_stops(facts):
    body = {"model": "pangu", "task": "couplet", "fields": {"first": "海阔凭鱼跃"}}
    found = read_generation(CompletionFields, body, CATALOG, facts)
    assert found.prompts[0].text == "上联：海阔凭鱼跃\n下联：" and found.stop == ("\n",)
    found = read_generation(CompletionFields, {**body, "stop": "。"}, CATALOG, facts)
    assert found.stop == ("。",)
    with pytest.raises(ApiError, match="field 'first' is missing.*unknown field 'firts'"):
        read_generation(CompletionFields, {**body, "fields": {"firts": "x"}}, CATALOG, facts)
    with pytest.raises(ApiError, match="did you mean 'couplet'"):
        read_generation(CompletionFields, {**body, "task": "couplets"}, CATALOG, facts)


def test_a_scenario_is_a_model_with_its_own_sampling(facts):
    found = chat(facts, model="pangu/couplets")
    assert found.prompts[0].text.endswith("上联：你好\n下联：") and found.stop == ("\n",)
    assert (found.max_tokens, found.draws["temperature"], found.draws["top_p"]) == (24, 0.7, 0.9)
    found = chat(facts, model="pangu/couplets", temperature=0, max_completion_tokens=5)
    assert (found.max_tokens, found.draws["temperature"]) == (5, 0.0)
    found = completion(facts, model="pangu/couplets")
    assert found.prompts[0].text.endswith("上联：曹操\n下联：")
    error = refusal(chat, facts, model="pangu/slogans")
    assert "product, features" in error.message
    error = refusal(completion, facts, model="pangu/slogans")
    assert "product, features" in error.message


def test_the_length_of_a_scenario_is_cut_to_the_context_and_that_of_a_client_is_not(facts):
    small = replace(facts, context=len(facts.encode("上联：你好")) + 150)
    room = small.context - len(chat(small, model="pangu/storyteller").prompts[0].ids)
    assert chat(small, model="pangu/storyteller").max_tokens == min(200, room) < 200
    error = refusal(chat, small, model="pangu/storyteller", max_tokens=200)
    assert error.code == "context_length_exceeded"


def test_max_completion_tokens_goes_before_max_tokens(facts):
    assert chat(facts, max_tokens=9, max_completion_tokens=4).max_tokens == 4
    assert chat(facts, logprobs=True, top_logprobs=3).logprobs == 3
    assert chat(facts, logprobs=True).logprobs == 0 and chat(facts).logprobs is None
    assert "top_logprobs: only allowed" in refusal(chat, facts, top_logprobs=3).message


def test_what_a_chat_cannot_express(facts):
    for messages, words in (
        ([], "at least one message"),
        ([{"role": "tool", "content": "x"}], "messages[0].role: 'tool' is not known"),
        ([*HELLO, {"role": "system", "content": "x"}], "messages[1].role: only the first"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "a part of type 'image_url'"),
        ([{"content": "x"}], "messages[0].role: missing"),
    ):
        assert words in refusal(chat, facts, messages=messages).message
    assert "not the assistant's" in refusal(chat, facts, continue_final_message=True).message
    system = [{"role": "system", "content": "x"}, *HELLO]
    assert (
        "a scenario describes itself" in refusal(chat, facts, model="pangu/doctor", messages=system).message
    )


def test_one_thing_to_tokenize(facts):
    assert read_fields(TokenizeFields, {"prompt": "a"}).prompt == "a"
    for body in ({}, {"prompt": "a", "task": "couplet"}):
        with pytest.raises(ApiError, match="give one of prompt, task and messages"):
            read_fields(TokenizeFields, body)
