"""Requests that nobody would write: of the parser by hypothesis, of the whole interface by schemathesis."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from contextlib import closing

import httpx
import pytest

from pangu_alpha.serving.scenarios import shipped_scenarios
from pangu_alpha.serving.wire.body import parse_body
from pangu_alpha.serving.wire.catalog import Catalog
from pangu_alpha.serving.wire.errors import ApiError
from pangu_alpha.serving.wire.fields import (
    ABSENT,
    IGNORED,
    ChatFields,
    CompletionFields,
    DetokenizeFields,
    TokenizeFields,
)
from pangu_alpha.serving.wire.prompts import text_to_encode
from pangu_alpha.serving.wire.requests import read_fields, read_generation
from tests.serving.running import Server, until

hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis, which the extra dev installs")
given, st = hypothesis.given, hypothesis.strategies

CATALOG = Catalog("pangu", shipped_scenarios(), 1)
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# No deadline for an example: a machine may stand still. No database: nothing is written beside the tests.
settings = hypothesis.settings(max_examples=200, deadline=None, database=None, print_blob=True)

numbers = (
    st.integers() | st.floats() | st.sampled_from([0, -1, 1e308, 2**63, 10**400, -0.0, 5e-324])
)  # floats with NaN and infinities
scalars = st.none() | st.booleans() | numbers | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
likely = st.sampled_from(
    ["却说", "", "\x00", "\ud800", ["却说"], [30], [[30], [31]], [], [[]], {"1": 5}, {"1": -100}, {"x": 1},
     {"role": "user", "content": "甲：乙"}, [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
     [{"role": "assistant", "content": None}], {"include_usage": True}, "pangu", "pangu/doctor", "couplet",
     {"first": "春"}, [{"first": "春", "second": "秋"}], 0, 1, 3, 20, 0.5, -2, True, ["\n"] * 16]
)  # fmt: skip


def bodies(cls):
    """Bodies with some of the fields of a route, and with some that no route has."""
    names = st.sampled_from([*cls.__dataclass_fields__, *ABSENT, *IGNORED, "unknown"])
    found = st.dictionaries(names, likely | values, max_size=8)
    base = st.just({"model": "pangu", "prompt": "却说", "messages": [{"role": "user", "content": "你好"}]})
    keep = [name for name in ("model", "prompt", "messages") if name in cls.__dataclass_fields__]
    return st.tuples(base, found, st.booleans()).map(
        lambda made: {**({name: made[0][name] for name in keep} if made[2] else {}), **made[1]}
    )


def strict(value) -> str:
    """JSON that any reader takes: no NaN, no half of a character."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    text.encode("utf-8")
    return text


@settings
@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_a_body_is_an_object_or_an_error_of_the_client(content):
    try:
        found = parse_body(content)
    except ApiError as error:
        assert error.status == 400 and strict(error.json())
    else:
        assert isinstance(found, dict) and json.loads(strict(found)) == found


@pytest.mark.parametrize("cls", [CompletionFields, ChatFields], ids=["completions", "chat"])
def test_a_request_is_valid_or_an_error_of_the_client(facts, cls):
    @settings
    @given(bodies(cls), st.booleans())
    def check(body, ignore):
        try:
            found = read_generation(cls, body, CATALOG, facts, ignore_unknown=ignore)
        except ApiError as error:
            assert error.status in (400, 404) and len(error.message) < 100_000
            return
        assert found.prompts and all(prompt.ids for prompt in found.prompts)
        assert all(0 <= token < facts.vocab_size for prompt in found.prompts for token in prompt.ids)
        assert 1 <= found.n <= found.samples <= facts.slots and "" not in found.stop
        assert found.max_tokens + max(len(prompt.ids) for prompt in found.prompts) <= facts.context
        assert found.max_tokens > 0 or found.echo
        assert strict({**found.draws, "seed": found.seed, "bias": list(found.logit_bias.values())})

    check()


@pytest.mark.parametrize("cls", [TokenizeFields, DetokenizeFields], ids=["tokenize", "detokenize"])
def test_texts_and_ids_are_read_or_an_error_of_the_client(facts, cls):
    @settings
    @given(bodies(cls))
    def check(body):
        try:
            found = read_fields(cls, body)
            if cls is TokenizeFields:
                text, problems = text_to_encode(found, None)
                assert problems or all(0 <= token < facts.vocab_size for token in facts.encode(text))
        except ApiError as error:
            assert error.status == 400

    check()


@settings
@given(st.text(max_size=80))
def test_text_comes_back_as_its_tokens_say(facts, text):
    ids = facts.encode(text)
    assert facts.decode(ids) == "".join(facts.text_of(token) for token in ids)


def program() -> str:
    """schemathesis, in this environment or in one of its own, which PANGU_SCHEMATHESIS names."""
    found = os.environ.get("PANGU_SCHEMATHESIS") or shutil.which("schemathesis")
    if found is None:
        pytest.skip("needs schemathesis: python -m venv V && V/bin/pip install schemathesis, then "
                    "PANGU_SCHEMATHESIS=V/bin/schemathesis")  # fmt: skip
    return found


def description(server, path):
    """Writes the server's description with the names of models: any other is refused before all else."""
    found = httpx.get(server.url + "/openapi.json").json()
    for cls in (CompletionFields, ChatFields):
        fields = found["components"]["schemas"][cls.__name__]["properties"]
        assert {"model", "max_tokens", "n"} <= set(fields)
        fields["model"] = {"enum": ["pangu", "pangu/doctor"]}
        fields["max_tokens"] = {**fields["max_tokens"], "maximum": 40}  # most numbers exceed the context
        fields["n"] = {**fields["n"], "maximum": 4}  # and the slots
    path.write_text(json.dumps(found), "utf-8")
    return path


@pytest.mark.long
def test_ten_thousand_requests_made_from_the_description(tmp_path, vocabulary):
    """No answer is an error of the server, all answers are described, and all slots are free afterwards."""
    options = ("--vocabulary", vocabulary, "--delay", 0, "--random", "--slots", 4, "--queue", 64)
    with closing(Server(tmp_path, *options)) as server:
        described = description(server, tmp_path / "openapi.json")
        asked = 0
        for seed in range(1, 30):
            words = ["run", str(described), "--url", server.url, "--checks", CHECKS, "--max-examples", "150"]
            words += ["--phases", "examples,coverage,fuzzing", "--mode", "all", "--seed", str(seed)]
            words += ["--request-timeout", "60", "--no-color", "--suppress-health-check", "all"]
            done = subprocess.run(
                [program(), *words], cwd=tmp_path, capture_output=True, text=True, timeout=1500
            )
            assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
            asked = sum("status" in line for line in server.lines())
            if asked >= 10_000:
                break
        assert asked >= 10_000
        until(lambda: httpx.get(server.url + "/health/ready").json()["running"] == 0)
        assert httpx.get(server.url + "/health/ready").json()["waiting"] == 0
        assert not [line for line in server.lines() if line["status"] >= 500]
        answered = Counter(line["path"] for line in server.lines() if line["status"] == 200)
        print(asked, Counter(line["status"] for line in server.lines()), answered)
        for path in ("/v1/completions", "/v1/chat/completions"):
            assert answered[path] > 100  # or the engine had nothing to do
        assert "Traceback" not in server.text
