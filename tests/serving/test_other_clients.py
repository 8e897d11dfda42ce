"""langchain-openai and OpenAI's client for JavaScript against the server, over the fake engine."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from contextlib import closing

import httpx
import pytest

from tests.serving.running import ROOT, Server, client_program, needs_clients

SCRIPTS = ROOT / "tests/serving/clients"
OPENAI = "openai-6.49.0.tgz"  # the last one for Node 20; version 7 needs Node 22
OPENAI_SHA256 = "e48de0f4c5dbecebdeb864233f5ea49be07cd3e0ff3bd3e1e6745dc5e168cced"
NODE = 20
SENT = {"model": "pangu", "temperature": 0}
USER = {"role": "user", "content": "却说"}
FRIDGE = {"role": "system", "content": "小冰，一台冰箱"}


@pytest.fixture(scope="module")
def url(tmp_path_factory, vocabulary):
    """Address of a server whose steps take long enough for a request to be left."""
    options = ("--vocabulary", vocabulary, "--delay", 0.02, "--slots", 4)
    with closing(Server(tmp_path_factory.mktemp("server"), *options)) as server:
        yield server.url


def ask(url, route, **fields):
    """What the server answers without any client between."""
    return httpx.post(f"{url}/v1/{route}", json={**SENT, **fields}, timeout=60).json()


def completed(url, prompt):
    return ask(url, "completions", prompt=prompt, max_tokens=8)["choices"][0]["text"]


def run(*words, **options):
    """The line of JSON that a client's script prints."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def langchain(url):
    python = client_program("python")
    probe = [python, "-c", "import langchain_openai"]
    if python is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip(needs_clients("langchain-openai"))
    return run(python, SCRIPTS / "langchain_client.py", url)


def test_langchain_chats_plain_streamed_and_several_at_once(langchain, url):
    answer = ask(url, "chat/completions", messages=[FRIDGE, USER], max_tokens=6)
    text, usage = answer["choices"][0]["message"]["content"], answer["usage"]
    assert text and langchain["chat"]["text"] == langchain["stream"]["text"] == text
    assert langchain["stream"]["pieces"] == 4  # the server's six chunks; two ids have no text
    assert langchain["together"] == [text] * 6
    for found in (langchain["chat"], langchain["stream"]):
        counts = {name: found["usage"][f"{name}_tokens"] for name in ("input", "output", "total")}
        assert counts == {"input": usage["prompt_tokens"], "output": 6, "total": usage["total_tokens"]}
        assert found["reason"] == "length"
    likely = langchain["logprobs"]["logprobs"]
    assert "".join(each["token"] for each in likely) == text and len(likely) == 6
    assert all(len(each["top_logprobs"]) == 2 and each["logprob"] <= 0 for each in likely)


def test_langchain_continues_texts(langchain, url):
    assert langchain["text"] == completed(url, "却说") == "".join(langchain["text_stream"])
    assert langchain["texts"] == [completed(url, "却说"), completed(url, "曹操")]
    assert len(langchain["text_stream"]) == 8


def test_langchain_raises_its_own_errors_and_frees_a_slot_when_it_leaves(langchain):
    assert langchain["refused"] == [
        [404, "model_not_found", True],
        [400, "context_length_exceeded", True],
    ]
    assert langchain["left"] == [1, 0]


@pytest.fixture(scope="module")
def npm(url, tmp_path_factory):
    node, archive = shutil.which("node"), ROOT / "data" / OPENAI
    version = node and subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    if not node or int(re.match(r"v(\d+)", version)[1]) < NODE:
        pytest.skip(f"needs Node {NODE} or later")
    if not archive.is_file():
        pytest.skip("needs OpenAI's client: npm pack openai@6.49.0 --pack-destination data")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert digest == OPENAI_SHA256, f"{archive} is not openai 6.49.0"
    folder = tmp_path_factory.mktemp("npm")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "node_modules")  # its digest is known; Python 3.11.2 has no filter
    (folder / "node_modules/package").rename(folder / "node_modules/openai")
    shutil.copy(SCRIPTS / "npm_client.mjs", folder)
    return run(node, folder / "npm_client.mjs", url)


def test_the_javascript_client_lists_the_models(npm, url):
    listed = httpx.get(f"{url}/v1/models").json()["data"]
    assert npm["models"] == [model["id"] for model in listed]
    assert npm["one"] in listed and npm["one"]["kind"] == "scenario"


def test_the_javascript_client_continues_texts_plain_and_streamed(npm, url):
    plain, chunks = npm["text"], npm["textStream"]
    assert [choice["text"] for choice in plain["choices"]] == [completed(url, "却说"), completed(url, "曹操")]
    texts = ["", ""]
    for chunk in chunks[:-1]:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in plain["choices"]] and len(chunks) == 17
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == plain["usage"]
    for choice in plain["choices"]:
        assert "".join(choice["logprobs"]["tokens"]) == choice["text"]


def test_the_javascript_client_chats_plain_streamed_and_by_its_helper(npm):
    (choice,) = npm["chat"]["choices"]
    text = choice["message"]["content"]
    deltas = [chunk["choices"][0]["delta"] for chunk in npm["chatStream"][:-1]]
    assert text and deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta["content"] for delta in deltas) == text == npm["chatHelper"][0]["message"]["content"]
    assert npm["chatHelper"][0]["finish_reason"] == choice["finish_reason"] == "length"
    assert "".join(each["token"] for each in choice["logprobs"]["content"]) == text
    assert npm["chatStream"][-1]["usage"] == npm["chat"]["usage"]


def test_the_javascript_client_raises_its_own_errors_and_frees_a_slot_when_it_aborts(npm):
    kinds = [(error["name"], error["status"], error["code"]) for error in npm["refused"]]
    assert kinds == [
        ("NotFoundError", 404, "model_not_found"),
        ("BadRequestError", 400, "context_length_exceeded"),
    ]
    assert all(error["requestID"] for error in npm["refused"]) and npm["left"] == [1, 0]
