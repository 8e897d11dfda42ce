"""/openapi.json: what it shows can be sent, and what it refuses is refused."""

from __future__ import annotations

import httpx
import pytest

from tests.serving.running import digest


def bodies(described, path):
    """The examples of a route by their names."""
    content = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    return {name: each["value"] for name, each in content.get("examples", {}).items()}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/v1/completions", {"text", "stream", "scores", "task"}),
        ("/v1/chat/completions", {"question", "persona", "stream", "scenario"}),
        ("/tokenize", {"text", "chat"}),
        ("/v1/tokenize", {"text", "chat"}),
        ("/detokenize", {"ids"}),
    ],
)
def test_every_example_is_answered_as_it_stands(server, path, names):
    found = bodies(httpx.get(server.url + "/openapi.json").json(), path)
    assert set(found) == names
    for name, body in found.items():
        answer = httpx.post(server.url + path, json=body, timeout=30)
        assert answer.status_code == 200, (name, answer.text)
        assert answer.headers["content-type"].startswith(
            "text/event-stream" if body.get("stream") else "application/json"
        )


def test_examples_name_only_what_a_key_may_use(start, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"anna:{digest('a')}\nbert:{digest('b')}:couplets,doctor\n", "utf-8")
    keys.chmod(0o600)
    server = start("--key-file", keys)
    for secret, models in (("a", {"pangu", "pangu/customer_service"}), ("b", {"pangu/doctor"})):
        headers = {"authorization": f"Bearer {secret}"}
        described = httpx.get(server.url + "/openapi.json", headers=headers).json()
        found = [
            (path, body)
            for path in ("/v1/completions", "/v1/chat/completions")
            for body in bodies(described, path).values()
        ]
        assert {body["model"] for _, body in found} == models
        for path, body in found:
            answer = httpx.post(server.url + path, json=body, headers=headers, timeout=30)
            assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": []},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"stop": ["x" * 65]},
        {"stop": ["x"] * 17},
        {"stop": ""},
        {"logit_bias": {"x": 1}},
        {"logit_bias": {"1": 101}},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_the_schema_is_as_strict_as_the_server(server, wrong):
    jsonschema = pytest.importorskip("jsonschema")
    described = httpx.get(server.url + "/openapi.json").json()
    schema = described["components"]["schemas"]["ChatFields"]
    body = bodies(described, "/v1/chat/completions")["question"]
    jsonschema.validate(body, schema)
    assert httpx.post(server.url + "/v1/chat/completions", json=body | wrong).status_code == 400
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body | wrong, schema)
