"""lm-evaluation-harness as a client of the server: its scores are those of the known logits."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.inference.engine.fake_decoder import FakeDecoder
from tests.serving.running import Server

# The harness may stand in an environment of its own, whose versions would clash with ours.
LM_EVAL = os.environ.get("PANGU_LM_EVAL") or shutil.which("lm_eval", path=str(Path(sys.executable).parent))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(LM_EVAL is None, reason="needs lm_eval[api]: name its program in PANGU_LM_EVAL"),
]
CASES = 200
WORDS = "却说曹操引兵大进次日天明玄德与孔明商议春风得意花千树"
TASKS = {
    "choice": """
task: choice
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
doc_to_target: 0
target_delimiter: ""
metric_list: [{metric: acc}]
""",
    "rolling": """
task: rolling
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}]
""",
    "writing": """
task: writing
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: "{{text}}"
generation_kwargs: {until: ["曹", "操", "大", "明"], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match}]
""",
}


@pytest.fixture(scope="module")
def scored(tmp_path_factory, vocabulary):
    """The samples that the harness writes, by task."""
    folder = tmp_path_factory.mktemp("harness")
    draw = random.Random(1)

    def text(size):
        return "".join(draw.choice(WORDS) for _ in range(size))

    rows = [{"text": text(draw.randint(3, 30)), "choices": [text(4), text(7)]} for _ in range(CASES // 2)]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    for name, content in TASKS.items():
        (folder / f"{name}.yaml").write_text(content.replace("DATA", str(data)), "utf-8")
    options = (
        "--vocabulary",
        vocabulary,
        "--delay",
        0,
        "--random",
        "--slots",
        4,
        "--connections-per-peer",
        64,
    )
    with closing(Server(folder, *options)) as server:
        arguments = (
            f"model=pangu,base_url={server.url}/v1/completions,tokenizer_backend=remote,max_length=256,"
            "num_concurrent=4"
        )
        words = {"--model": "local-completions", "--model_args": arguments, "--include_path": folder}
        words |= {"--tasks": ",".join(TASKS), "--output_path": folder / "out"}
        done = subprocess.run(
            [LM_EVAL, "--log_samples", *(str(word) for pair in words.items() for word in pair)],
            capture_output=True,
            text=True,
            timeout=500,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "OPENAI_API_KEY": "x"},
        )
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for name in TASKS:
        (file,) = (folder / "out").rglob(f"samples_{name}_*.jsonl")
        found[name] = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return found


@pytest.fixture(scope="module")
def logits(facts):
    """The fake engine's logits after ids, as in fake_engine.py."""
    decoder = FakeDecoder(rows=4, context=256, chunk=16, vocab_size=facts.vocab_size)
    decoder.table[:, facts.end_of_document] -= 1.0
    return decoder.logits


def nats(logits, ids, first):
    """Log-probability of the ids from the place `first` on."""
    total = 0.0
    for place in range(first, len(ids)):
        scores = logits(ids[:place]).astype(np.float64)
        total += scores[ids[place]] - scores.max() - np.log(np.exp(scores - scores.max()).sum())
    return total


def test_likelihoods_of_200_cases_are_those_of_the_logits(scored, facts, logits):
    checked = 0
    for sample in scored["choice"]:
        for choice, ((value, _),) in zip(sample["doc"]["choices"], sample["resps"], strict=True):
            context = facts.encode(sample["doc"]["text"])
            ids = facts.encode(sample["doc"]["text"] + choice)
            assert float(value) == pytest.approx(nats(logits, ids, len(context)), abs=1e-4)
            checked += 1
    assert checked == CASES


def test_whole_texts_are_scored_from_the_end_of_document_on(scored, facts, logits):
    for sample in scored["rolling"]:
        ids = [facts.end_of_document, *facts.encode(sample["doc"]["text"])]
        ((value,),) = sample["resps"]
        assert float(np.ravel(value)[0]) == pytest.approx(nats(logits, ids, 1), abs=1e-4)


def test_texts_end_before_the_words_that_end_them(scored, facts, logits):
    for sample in scored["writing"]:
        ids = facts.encode(sample["doc"]["text"])
        banned = [*(facts.tokenizer.control_ids - {facts.end_of_document}), facts.tokenizer.unk_id]
        text = ""
        for _ in range(12):
            scores = logits(ids).copy()
            scores[[*banned, *range(facts.tokenizer.vocab_size, facts.vocab_size)]] = -np.inf
            ids.append(int(scores.argmax()))
            if ids[-1] == facts.end_of_document:
                break
            text += facts.text_of(ids[-1])
        cut = min((text.index(word) for word in "曹操大明" if word in text), default=len(text))
        assert sample["resps"] == [[text[:cut]]]
