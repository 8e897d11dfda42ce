"""The routes of a running server, over the fake engine: answers, streams, errors, keys and hosts."""

from __future__ import annotations

import base64
import json
import re
import socket
from contextlib import closing

import httpx
import pytest

from tests.serving.fake_engine import SCRIPT
from tests.serving.running import Server, digest, until

GREEDY = {"model": "pangu", "prompt": "却说", "temperature": 0}


def post(server, path="/v1/completions", **body):
    return httpx.post(server.url + path, json=body, timeout=30)


def events(answer) -> list:
    """The values of a stream, of which the last is [DONE]."""
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.text.endswith("\n\n") and "\r" not in answer.text
    # A comment keeps a stream open that waits for long, as on a machine that stands still.
    parts = [part for part in answer.text.split("\n\n") if part and part != ": wait"]
    assert all(part.startswith("data: ") for part in parts), parts
    assert parts[-1] == "data: [DONE]"
    return [json.loads(part[6:]) for part in parts[:-1]]


def test_a_completion_says_the_script(server):
    answer = post(server, **GREEDY, max_tokens=6)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert found["object"] == "text_completion" and found["id"].startswith("cmpl-")
    (choice,) = found["choices"]
    assert (
        choice["finish_reason"] == "length" and choice["logprobs"] is None and choice["stop_reason"] is None
    )
    assert choice["text"] and choice["text"] in SCRIPT.replace("，", ",")
    assert found["usage"]["completion_tokens"] == 6 and re.fullmatch(
        "[0-9a-f]{32}", answer.headers["x-request-id"]
    )


def test_a_stream_joined_is_the_plain_answer(server):
    for more in (
        {},
        {"logprobs": 3},
        {"echo": True},
        {"echo": True, "logprobs": 1},
        {"stop": "天"},
        {"n": 3},
    ):
        body = {**GREEDY, "max_tokens": 20, "seed": 4, "temperature": 1.0, **more}
        plain = post(server, **body).json()
        chunks = events(post(server, **body, stream=True, stream_options={"include_usage": True}))
        assert chunks[-1]["choices"] == [] and chunks[-1]["usage"].keys() == plain["usage"].keys()
        for choice in plain["choices"]:
            own = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
            assert "".join(each["text"] for each in own) == choice["text"]
            assert [each["finish_reason"] for each in own] == [None] * (len(own) - 1) + [
                choice["finish_reason"]
            ]
            assert own[-1]["stop_reason"] == choice["stop_reason"]
            for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
                if choice["logprobs"]:
                    assert sum((each["logprobs"][name] for each in own), []) == choice["logprobs"][name]


def test_every_split_of_a_stop_text_through_the_server(server):
    """The text before the stop, plain and streamed, for every part of the script as the stop."""
    whole = post(server, **GREEDY, max_tokens=24).json()["choices"][0]["text"]
    for start in range(2, 8):
        for size in (1, 2, 3, 5):
            stop = whole[start : start + size]
            expected = whole[: whole.index(stop)]
            body = {**GREEDY, "max_tokens": 24, "stop": [stop, "没有"]}
            (choice,) = post(server, **body).json()["choices"]
            assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (
                expected,
                "stop",
                stop,
            )
            chunks = events(post(server, **body, stream=True))
            assert "".join(c["text"] for chunk in chunks for c in chunk["choices"]) == expected


def test_echo_with_logprobs_and_no_new_token(server):
    found = post(server, **GREEDY, max_tokens=0, echo=True, logprobs=2).json()["choices"][0]
    logprobs = found["logprobs"]
    assert "".join(logprobs["tokens"]) == found["text"] == "却说" and found["finish_reason"] == "length"
    assert logprobs["token_logprobs"][0] is None is logprobs["top_logprobs"][0]
    assert all(value <= 0 for value in logprobs["token_logprobs"][1:])
    ids = post(server, "/tokenize", prompt="却说").json()["tokens"]
    again = post(server, **{**GREEDY, "prompt": [ids]}, max_tokens=0, echo=True, logprobs=2).json()[
        "choices"
    ][0]
    assert again == found


def test_lists_of_prompts_are_prompt_major(server):
    found = post(server, **{**GREEDY, "prompt": ["却说", "曹操"]}, n=2, max_tokens=3, echo=True).json()
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2, 3]
    assert [choice["text"][:2] for choice in found["choices"]] == ["却说", "却说", "曹操", "曹操"]
    assert found["usage"]["completion_tokens"] == 12


def test_a_seed_repeats_an_answer_and_without_one_they_differ(random_server):
    body = {"model": "pangu", "prompt": "曹操", "max_tokens": 12}
    first = post(random_server, **body, seed=3).json()
    assert post(random_server, **body, seed=3).json()["choices"] == first["choices"] and first["x_seed"] == 3
    others = [post(random_server, **body).json() for _ in range(5)]
    assert len({each["choices"][0]["text"] for each in others}) == 5
    again = post(random_server, **body, seed=others[0]["x_seed"]).json()
    assert again["choices"] == others[0]["choices"]


def test_best_of_returns_the_likeliest(random_server):
    body = {"model": "pangu", "prompt": "曹操", "max_tokens": 6, "seed": 5, "logprobs": 0}
    samples = post(random_server, **body, n=4).json()["choices"]
    means = {each["text"]: sum(each["logprobs"]["token_logprobs"]) / 6 for each in samples}
    best = post(random_server, **body, best_of=4, n=2).json()
    ranked = sorted(means, key=lambda text: -means[text])[:2]
    assert [each["text"] for each in best["choices"]] == ranked and best["usage"]["completion_tokens"] == 24


def test_bans_and_biases_never_make_bad_json(random_server):
    token = post(random_server, "/tokenize", prompt="曹").json()["tokens"][-1]
    body = {"model": "pangu", "prompt": "曹操", "max_tokens": 5, "logprobs": 20, "echo": True}
    for more in ({"logit_bias": {str(token): 100}}, {"logit_bias": {str(token): -100}}, {"top_k": 1},
                 {"min_p": 1.0}, {"frequency_penalty": 2, "presence_penalty": -2}):  # fmt: skip
        answer = post(random_server, **body, **more)
        found = json.loads(answer.text, parse_constant=pytest.fail)["choices"][0]
        assert all(len(top) >= 20 for top in found["logprobs"]["top_logprobs"][1:])
        if more.get("logit_bias") == {str(token): 100}:
            assert set(found["logprobs"]["tokens"][-5:]) == {"曹"}
        if more.get("logit_bias") == {str(token): -100}:
            assert "曹" not in found["logprobs"]["tokens"][-5:]


def test_a_banned_control_id_stays_banned(random_server):
    pad = next(
        n for n in range(12) if post(random_server, "/detokenize", tokens=[n]).json()["prompt"] == "<pad>"
    )
    body = {"model": "pangu", "prompt": "曹操", "max_tokens": 5, "logit_bias": {str(pad): 100}}
    assert "<pad>" not in post(random_server, **body).json()["choices"][0]["text"]


def test_a_chat_and_its_stream(server):
    body = {
        "model": "pangu",
        "messages": [{"role": "user", "content": "却说"}],
        "temperature": 0,
        "max_tokens": 4,
    }
    found = post(server, "/v1/chat/completions", **body).json()
    message = found["choices"][0]["message"]
    assert found["object"] == "chat.completion" and message["role"] == "assistant"
    chunks = events(post(server, "/v1/chat/completions", **body, stream=True))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == message["content"]
    assert not any("usage" in chunk for chunk in chunks)


def test_scenarios_are_models_with_a_pinned_prefix(server):
    listed = httpx.get(server.url + "/v1/models").json()["data"]
    assert listed[0]["kind"] == "base" and {each["kind"] for each in listed[1:]} == {"scenario"}
    one = httpx.get(server.url + "/v1/models/pangu/doctor").json()
    assert one in listed and one["greeting"] and one["fields"] == ["turn"]
    body = {"model": "pangu/doctor", "messages": [{"role": "user", "content": "你好"}], "max_tokens": 2}
    usage = post(server, "/v1/chat/completions", **body).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= 64
    assert httpx.get(server.url + "/v1/models/pangu/nobody").status_code == 404


def test_tokenize_and_back_at_both_places(server):
    for prefix in ("", "/v1"):
        found = post(
            server, prefix + "/tokenize", prompt="曹操", add_special_tokens=False, return_token_strs=True
        )
        ids = found.json()["tokens"]
        assert found.json()["count"] == len(ids) and "".join(found.json()["token_strs"]) == "曹操"
        assert post(server, prefix + "/detokenize", tokens=ids).json() == {"prompt": "曹操"}
        info = httpx.get(server.url + prefix + "/tokenizer_info").json()
        assert info["eos_token"] == "<eot>" and info["bos_token"] is None and "乙：" in info["chat_template"]
    assert post(server, "/tokenize", prompt="<eot>").json()["tokens"] == [info["eos_token_id"]]
    assert len(post(server, "/tokenize", prompt="<eot>x").json()["tokens"]) > 1
    talk = post(server, "/tokenize", messages=[{"role": "user", "content": "曹操"}], model="pangu").json()
    assert talk["prompt"] == "甲：曹操\n乙："
    assert (
        post(server, "/tokenize", task="couplet", fields={"first": "曹操"})
        .json()["prompt"]
        .endswith("下联：")
    )
    assert post(server, "/detokenize", tokens=[10**6]).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2", 404, "not_found"),
        ("GET", "/page/../../setup.py", 404, "not_found"),
        ("GET", "/page/%2e%2e%2fsetup.py", 404, "not_found"),
        ("GET", "/v1/completions", 405, "wrong_method"),
        ("DELETE", "/v1/models", 405, "wrong_method"),
    ],
)
def test_what_is_not_there_answers_in_the_same_form(server, method, path, status, code):
    answer = httpx.request(method, server.url + path)
    assert answer.status_code == status and answer.json()["error"]["code"] == code
    assert "x-request-id" in answer.headers


def test_only_json_and_only_so_much_of_it(server):
    answer = httpx.post(server.url + "/v1/completions", content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    huge = httpx.post(
        server.url + "/v1/completions", content=b"x" * (2 << 20), headers={"content-type": "application/json"}
    )
    assert huge.status_code == 413 and huge.json()["error"]["code"] == "body_too_large"
    broken = httpx.post(
        server.url + "/v1/completions", content=b"\xff", headers={"content-type": "application/json"}
    )
    assert broken.status_code == 400 and broken.json()["error"]["code"] == "invalid_json"


def test_a_large_body_in_chunks_is_counted_too(server):
    def content():
        for _ in range(40):
            yield b" " * (1 << 16)

    answer = httpx.post(
        server.url + "/v1/completions", content=content(), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413


def test_the_id_of_a_request_is_echoed_if_it_is_harmless(server):
    for given, taken in (("abc-1_X", True), ("a" * 65, False), ("a b", False)):
        found = httpx.get(server.url + "/version", headers={"x-request-id": given}).headers["x-request-id"]
        assert (found == given) == taken


def test_other_names_of_a_loopback_server_are_refused(server):
    for host, status in (("evil.example", 403), ("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:5", 200)):
        assert httpx.get(server.url + "/version", headers={"host": host}).status_code == status
        assert httpx.get(server.url + "/health", headers={"host": host}).status_code == 200  # a probe


def test_pages_have_a_strict_policy_and_a_tag(server):
    answer = httpx.get(server.url + "/")
    if answer.status_code == 404:
        pytest.skip("there is no page yet")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = httpx.get(server.url + "/", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert httpx.get(server.url + "/favicon.ico").status_code == 204


def test_figures_have_the_names_of_vllm(server):
    post(server, **GREEDY, max_tokens=2)
    text = httpx.get(server.url + "/metrics").text
    names = set(re.findall(r"^pangu:(\w+)", text, re.M))
    for name in (
        "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prefix_cache_queries_total",
        "prefix_cache_hits_total", "prompt_tokens_total", "generation_tokens_total", "request_success_total",
        "time_to_first_token_seconds_bucket", "inter_token_latency_seconds_bucket", "slots",
        "e2e_request_latency_seconds_bucket", "request_queue_time_seconds_bucket", "cancelled_total",
        "request_prefill_time_seconds_bucket", "request_decode_time_seconds_bucket", "engine_restarts_total",
        "request_prompt_tokens_bucket", "request_generation_tokens_bucket", "iteration_tokens_total_bucket",
    ):  # fmt: skip
        assert name in names, name
    assert "pangu:num_requests_running 0.0" in text


def test_one_line_a_request_without_its_text(server):
    post(server, **{**GREEDY, "prompt": "孔明商议"}, max_tokens=2)
    line = next(each for each in reversed(server.lines()) if each["path"] == "/v1/completions")
    assert line["status"] == 200 and line["prompt_tokens"] > 2 and line["completion_tokens"] == 2
    assert line.keys() >= {"id", "key", "model", "cached_tokens", "queue", "ttft", "total", "reason"}
    assert "孔明商议" not in server.text


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, vocabulary):
    """A server with keys: anna's may do all, bert's talk to the doctor alone, cleo's twice a minute."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys"
    lines = [f"anna:{digest('a')}", f"bert:{digest('b')}:doctor", f"cleo:{digest('c')}::2:1000"]
    keys.write_text("\n".join(lines), "utf-8")
    keys.chmod(0o600)
    options = ("--vocabulary", vocabulary, "--delay", 0, "--key-file", keys)
    with closing(Server(folder, *options, "--cors-origin", "https://good.example")) as found:
        yield found


def test_every_route_needs_a_key_but_those_for_probes(guarded):
    described = httpx.get(guarded.url + "/openapi.json", headers={"authorization": "Bearer a"}).json()
    checked = 0
    for path, operations in described["paths"].items():
        for method in operations:
            url = guarded.url + path.replace("{id}", "pangu").replace("{name}", "app.js")
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eDp3cm9uZw=="}):
                answer = httpx.request(method, url, headers=headers)
                if path.startswith("/health"):
                    assert answer.status_code == 200
                    continue
                assert answer.status_code == 401, (method, path)
                assert answer.json()["error"]["code"] == "invalid_api_key"
                checked += 1
    assert checked >= 3 * 16
    for path in ("/nothing", "/page/x.js", "/favicon.ico", "/v1/models/pangu/doctor"):
        assert httpx.get(guarded.url + path).status_code == 401


def test_browsers_are_asked_for_the_key_and_clients_are_not(guarded):
    assert httpx.get(guarded.url + "/").headers["www-authenticate"].startswith('Basic realm="PanGu-alpha"')
    assert httpx.get(guarded.url + "/v1/models").headers["www-authenticate"] == "Bearer"
    basic = base64.b64encode(b"me:a").decode()
    assert (
        httpx.get(guarded.url + "/v1/models", headers={"authorization": f"Basic {basic}"}).status_code == 200
    )


def test_a_key_that_is_bound_to_a_scenario(guarded):
    headers = {"authorization": "Bearer b"}
    listed = httpx.get(guarded.url + "/v1/models", headers=headers).json()["data"]
    assert [each["id"] for each in listed] == ["pangu/doctor"]
    body = {"prompt": "你好", "max_tokens": 2}
    for model, status in (("pangu/doctor", 200), ("pangu", 403), ("pangu/couplets", 403), ("other", 404)):
        answer = httpx.post(guarded.url + "/v1/completions", json={**body, "model": model}, headers=headers)
        assert answer.status_code == status, answer.text
    text = post_as(guarded, "b", model="pangu/doctor", prompt="你好", max_tokens=1, echo=True, logprobs=1)
    assert text.status_code == 400 and "would show the scenario's prompt" in text.text
    hidden = httpx.post(
        guarded.url + "/tokenize", headers=headers,
        json={"model": "pangu/doctor", "messages": [{"role": "user", "content": "x"}]},
    )  # fmt: skip
    assert (
        "prompt" not in hidden.json() and hidden.json().get("tokens") is None and hidden.json()["count"] > 100
    )


def post_as(server, key, **body):
    return httpx.post(
        server.url + "/v1/completions", json=body, headers={"authorization": f"Bearer {key}"}, timeout=30
    )


def test_limits_a_minute_have_the_headers_of_openai(guarded):
    body = {"model": "pangu", "prompt": "曹操", "max_tokens": 3}
    first = post_as(guarded, "c", **body)
    assert (
        first.headers["x-ratelimit-limit-requests"] == "2"
        and int(first.headers["x-ratelimit-remaining-tokens"]) < 1000
    )
    assert post_as(guarded, "c", **body).status_code == 200
    third = post_as(guarded, "c", **body)
    assert third.status_code == 429 and third.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(third.headers["retry-after"]) <= 30
    until(lambda: guarded.lines()[-1]["status"] == 429)  # it is written after the answer
    assert guarded.lines()[-1]["key"] == "cleo" and "Bearer" not in guarded.text


def test_pages_of_other_sites(guarded):
    ask = {"origin": "https://good.example", "access-control-request-method": "POST"}
    answer = httpx.options(guarded.url + "/v1/completions", headers=ask)
    assert (
        answer.status_code == 204 and answer.headers["access-control-allow-origin"] == "https://good.example"
    )
    assert "access-control-allow-credentials" not in answer.headers
    other = httpx.options(guarded.url + "/v1/completions", headers={**ask, "origin": "https://bad.example"})
    assert other.status_code == 401 and "access-control-allow-origin" not in other.headers


def test_a_request_in_the_words_of_http_alone(server):
    """Chunks arrive one by one, without a client library in between."""
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({**GREEDY, "max_tokens": 3, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        content = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    assert content.startswith("HTTP/1.1 200 OK") and "x-accel-buffering: no" in content
    assert "cache-control: no-cache" in content and content.count("data: ") == 4
