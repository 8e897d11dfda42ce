"""One server of a real network: what it answers is what the network computes in this process."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import httpx
import numpy as np
import openai
import pytest

from tests.serving import harness
from tests.serving.running import ROOT, Server, client_program, needs_clients

SHAPE = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "seq_length": 256, "dropout": 0.0}
PROMPTS = ["却说曹操引兵大进，次日天明，", "玄德", "春风得意花千树，秋雨梧桐叶落时。甲：你好。"]


@pytest.fixture(scope="module")
def run_folder(save_run, tmp_path_factory, vocabulary):
    return save_run(tmp_path_factory.mktemp("run"), vocabulary, **SHAPE)


@pytest.fixture(scope="module")
def real(run_folder, tmp_path_factory):
    words = ("--checkpoint", run_folder, "--slots", 3, "--context", 128, "--device", "CPU")
    folder = tmp_path_factory.mktemp("real")
    with closing(Server(folder, *words, program=(str(ROOT / "src/serve.py"),))) as found:
        yield found


@pytest.fixture(scope="module")
def loaded(run_folder):
    from pangu_alpha.inference.load import load_for_inference

    return load_for_inference(run_folder)


def test_it_says_what_it_is_and_how_long_each_graph_took(real, run_folder):
    text = real.text
    assert f"{run_folder}" in text and "3 slots and 2 pinned rows of 128 tokens:" in text
    for graph in ("feed 32", "feed 64", "score 64", "step", "copy"):
        assert f"graph {graph}: " in text
    assert "http://127.0.0.1" in text and ": ready; model pangu" in text


def test_the_likeliest_text_is_that_of_predict(real, loaded):
    from pangu_alpha.config.generate import SamplingConfig

    client = openai.OpenAI(base_url=f"{real.url}/v1", api_key="x", max_retries=0, timeout=60)
    found = client.completions.create(model="pangu", prompt=PROMPTS, max_tokens=20, temperature=0)
    greedy = SamplingConfig(greedy=True, max_new_tokens=20)
    generator = loaded.text_generator(3, 128)
    expected = [each.text for each in generator.complete(PROMPTS, greedy)]
    generator.generator.close()
    assert [choice.text for choice in found.choices] == expected


def test_echo_scores_are_those_of_the_network(real, loaded):
    """Against a forward pass over the whole prompt, without any cache."""
    from mindspore import Tensor

    ids = loaded.tokenizer.encode(PROMPTS[2])
    positions = np.arange(len(ids), dtype=np.int32)[None]
    mask = np.tril(np.ones((1, len(ids), len(ids)), np.int32)).astype(bool)
    body = {"model": "pangu", "prompt": [ids], "max_tokens": 0, "echo": True, "logprobs": 3, "temperature": 0}
    answer = httpx.post(f"{real.url}/v1/completions", json=body, timeout=60).json()["choices"][0]["logprobs"]
    logits = (
        loaded.model(Tensor(np.array([ids], np.int32)), Tensor(positions), Tensor(mask))
        .asnumpy()
        .astype(np.float64)[0]
    )
    scores = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    scores -= logits.max(-1, keepdims=True)
    expected = [scores[place, token] for place, token in enumerate(ids[1:])]
    np.testing.assert_allclose(answer["token_logprobs"][1:], expected, atol=1e-4)


def test_the_same_request_gives_the_same_bytes_among_others_and_from_the_cache(real):
    from concurrent.futures import ThreadPoolExecutor

    def ask(seed, prompt=PROMPTS[0] * 4):
        body = {"model": "pangu", "prompt": prompt, "max_tokens": 24, "seed": seed, "logprobs": 2}
        answer = httpx.post(f"{real.url}/v1/completions", json=body, timeout=120).json()
        return answer["choices"], answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    alone = [ask(seed) for seed in range(4)]
    with ThreadPoolExecutor(12) as pool:
        others = [pool.submit(ask, 100 + n, PROMPTS[n % 3]) for n in range(12)]
        again = [pool.submit(ask, seed) for seed in range(4)]
        assert [each.result()[0] for each in again] == [choices for choices, _ in alone]
        assert all(each.result()[0] for each in others)
    assert max(cached for _, cached in alone) >= 64


@pytest.fixture(scope="module")
def scored(real, tmp_path_factory):
    """What lm-evaluation-harness found through the server, by task."""
    if client_program("lm_eval") is None:
        pytest.skip(needs_clients("lm_eval"))
    return harness.samples(tmp_path_factory.mktemp("harness"), real.url, context=128)


@pytest.fixture(scope="module")
def scorer(run_folder):
    """The scores of this process, as evaluate.py takes them."""
    from pangu_alpha.evaluation import Scorer

    return Scorer(run_folder)


def test_the_harness_scores_200_cases_as_this_process_does(scored, scorer):
    pairs, found = [], []
    for sample in scored["choice"]:
        for choice, (answer,) in zip(sample["doc"]["choices"], sample["resps"], strict=True):
            context = scorer.tokenizer.encode(sample["doc"]["text"])
            whole = scorer.tokenizer.encode(sample["doc"]["text"] + choice)
            # The harness puts the border after so many ids, even where the whole text has other ids there.
            pairs.append((context, [*context, *whole[len(context) :]]))
            found.append(answer)
    assert len(pairs) == harness.CASES
    expected = scorer.predict(pairs)
    scores = [float(score) for score, _ in found]
    np.testing.assert_allclose(scores, [-each.nats.sum() for each in expected], rtol=0, atol=1e-4)
    assert [greedy in (True, "True") for _, greedy in found] == [bool(e.likeliest.all()) for e in expected]


def test_the_harness_scores_whole_texts_from_the_end_of_document_on(scored, scorer):
    texts = [sample["doc"]["text"] for sample in scored["rolling"]]
    end = scorer.end_of_document
    expected = scorer.predict([([end], [end, *scorer.tokenizer.encode(text)]) for text in texts])
    scores = [float(np.ravel(sample["resps"][0][0])[0]) for sample in scored["rolling"]]
    np.testing.assert_allclose(scores, [-each.nats.sum() for each in expected], rtol=0, atol=1e-4)


def test_the_harness_gets_texts_that_end_before_the_words_that_end_them(scored, loaded):
    from pangu_alpha.config.generate import SamplingConfig

    greedy = SamplingConfig(greedy=True, max_new_tokens=harness.WRITTEN)
    generator = loaded.text_generator(3, 128)
    written = generator.complete([sample["doc"]["text"] for sample in scored["writing"]], greedy)
    generator.generator.close()
    texts = [each.text for each in written]
    cut = [min((text.index(w) for w in harness.END if w in text), default=len(text)) for text in texts]
    assert any(place < len(text) for place, text in zip(cut, texts, strict=True))
    assert [sample["resps"] for sample in scored["writing"]] == [
        [[text[:place]]] for place, text in zip(cut, texts, strict=True)
    ]


def refused(*words):
    """A server that does not start."""
    program = [sys.executable, str(ROOT / "src/serve.py"), "--port", "0"]
    return subprocess.run([*program, *map(str, words)], capture_output=True, text=True, timeout=200)


def test_a_bad_checkpoint_is_refused_at_once(tmp_path):
    done = refused("--checkpoint", tmp_path / "none")
    assert done.returncode == 2 and "there is no such file or folder" in done.stderr


def test_more_context_than_the_network_has_is_refused(run_folder):
    done = refused("--checkpoint", run_folder, "--context", 257)
    assert done.returncode == 2 and "context: 257 tokens, but the model has positions for 256" in done.stderr


def test_what_does_not_fit_is_said_in_gigabytes():
    from pangu_alpha.config.zoo import load_model_config
    from pangu_alpha.inference.caches import cache_bytes
    from pangu_alpha.serving.engine.memory import itemsize, refuse_what_does_not_fit
    from pangu_alpha.serving.engine.settings import EngineSettings

    model = load_model_config("2_6b")
    size = cache_bytes(model, 10, 1025, itemsize(model, "CPU"))
    assert size == 2 * model.num_layers * 10 * 1025 * 2560 * 4
    with pytest.raises(
        ValueError, match=r"8 slots and 2 pinned rows need 6.\d\d GB of cache \(672 MB each\)"
    ):
        refuse_what_does_not_fit(model, size, 8 * 10**9, EngineSettings("x"))
    refuse_what_does_not_fit(model, size, 10**11, EngineSettings("x"))
    refuse_what_does_not_fit(model, size, None, EngineSettings("x"))
