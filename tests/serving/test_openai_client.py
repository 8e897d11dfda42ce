"""The official Python client of OpenAI against the server, over the fake engine."""

from __future__ import annotations

import httpx
import openai
import pytest

from tests.serving.running import until

TALK = [{"role": "user", "content": "却说"}]


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=30) as found:
        yield found


def test_models(client):
    found = {each.id: each for each in client.models.list()}
    assert found["pangu"].owned_by == "pangu_alpha" and found["pangu"].model_extra["kind"] == "base"
    assert client.models.retrieve("pangu/doctor") == found["pangu/doctor"]


def test_completions_plain_and_streamed(client):
    asked = {"model": "pangu", "prompt": ["却说", "曹操"], "max_tokens": 8, "temperature": 0, "logprobs": 2}
    plain = client.completions.create(**asked)
    assert [choice.index for choice in plain.choices] == [0, 1] and plain.usage.completion_tokens == 16
    assert {choice.finish_reason for choice in plain.choices} == {"length"}
    texts = ["", ""]
    stream = client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in plain.choices]
    assert chunks[-1].usage == plain.usage and chunks[-1].choices == []
    assert plain.usage.prompt_tokens_details.cached_tokens >= 0
    logprobs = plain.choices[0].logprobs
    assert "".join(logprobs.tokens) == plain.choices[0].text and len(logprobs.top_logprobs[0]) >= 2


def test_chat_plain_and_streamed(client):
    asked = {"model": "pangu", "messages": TALK, "max_tokens": 6, "temperature": 0}
    plain = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    assert plain.choices[0].message.role == "assistant"
    content = plain.choices[0].logprobs.content
    assert "".join(each.token for each in content) == plain.choices[0].message.content
    assert all(bytes(each.bytes).decode() == each.token for each in content)
    stream = client.chat.completions.create(**asked, stream=True)
    deltas = [chunk.choices[0].delta for chunk in stream]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == plain.choices[0].message.content


@pytest.mark.parametrize(
    ("asked", "kind", "code"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found"),
        ({"max_tokens": 10**6}, openai.BadRequestError, "context_length_exceeded"),
        ({"temperature": 5}, openai.BadRequestError, "invalid_value"),
    ],
)
def test_errors_are_those_of_the_client(client, asked, kind, code):
    with pytest.raises(kind) as error:
        client.completions.create(**{"model": "pangu", "prompt": "却说", **asked})
    assert error.value.code == code and error.value.request_id


def test_a_stream_that_is_left_frees_its_slot(start):
    slow = start("--delay", 0.05, "--slots", 1)
    client = openai.OpenAI(base_url=f"{slow.url}/v1", api_key="x", max_retries=0, timeout=30)
    stream = client.completions.create(model="pangu", prompt="却说", max_tokens=200, stream=True)
    next(iter(stream))
    stream.close()
    until(lambda: httpx.get(slow.url + "/health/ready").json()["running"] == 0)
    assert client.completions.create(model="pangu", prompt="却说", max_tokens=2).usage.completion_tokens == 2
    assert "pangu:cancelled_total 1.0" in httpx.get(slow.url + "/metrics").text


def test_an_error_inside_a_stream_is_raised(start):
    slow = start("--delay", 0.05, "--deadline", 0.6)
    client = openai.OpenAI(base_url=f"{slow.url}/v1", api_key="x", max_retries=0, timeout=30)
    with pytest.raises(openai.APIError, match="not finished in time") as error:
        list(client.completions.create(model="pangu", prompt="却说", max_tokens=200, stream=True))
    assert error.value.code == "deadline_exceeded"
    with pytest.raises(openai.APIStatusError) as plain:
        client.completions.create(model="pangu", prompt="却说", max_tokens=200)
    assert plain.value.status_code == 408 and plain.value.response.headers["x-should-retry"] == "false"


def test_the_client_waits_and_tries_again_when_the_queue_is_full(start):
    """It honours Retry-After by itself."""
    busy = start("--delay", 0.02, "--slots", 1, "--queue", 0)
    client = openai.OpenAI(base_url=f"{busy.url}/v1", api_key="x", max_retries=2, timeout=30)
    stream = client.completions.create(model="pangu", prompt="却说", max_tokens=40, stream=True)
    first = next(iter(stream))
    found = client.completions.create(model="pangu", prompt="却说", max_tokens=2)
    assert first.id != found.id and found.usage.completion_tokens == 2
    assert any(line["status"] == 429 for line in busy.lines())
    stream.close()
