"""lm-evaluation-harness as a client of a server: small tasks on a file of texts, and what it found.

It runs offline, and takes the tokenizer from the server: nothing of Hugging Face's is loaded.
"""

from __future__ import annotations

import json
import os
import random
import subprocess

from tests.serving.running import client_program

CASES = 200
END = ("曹", "操", "大", "明")  # of a written text
WRITTEN = 12  # tokens of one, at most
WORDS = "却说曹操引兵大进次日天明玄德与孔明商议春风得意花千树"
COMMON = """
task: NAME
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
target_delimiter: ""
"""
TASKS = {
    "choice": """
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
doc_to_target: 0
metric_list: [{metric: acc}]
""",
    "rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}]
""",
    "writing": f"""
output_type: generate_until
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{text}}}}"
generation_kwargs: {{until: {json.dumps(END)}, max_gen_toks: {WRITTEN}, do_sample: false}}
metric_list: [{{metric: exact_match}}]
""",
}


def samples(folder, url, context):
    """Runs all tasks through the server; the samples that the harness writes, by task.

    Args:
        context: Length of the server's context in tokens.
    """
    _write_tasks(folder)
    server = f"model=pangu,base_url={url}/v1/completions,tokenizer_backend=remote,max_length={context}"
    words = {"--model": "local-completions", "--model_args": f"{server},num_concurrent=4"}
    words |= {"--include_path": folder, "--tasks": ",".join(TASKS), "--output_path": folder / "out"}
    done = subprocess.run(
        [client_program("lm_eval"), "--log_samples", *(str(word) for pair in words.items() for word in pair)],
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


def _write_tasks(folder):
    draw = random.Random(1)

    def text(size):
        return "".join(draw.choice(WORDS) for _ in range(size))

    rows = [{"text": text(draw.randint(3, 30)), "choices": [text(4), text(7)]} for _ in range(CASES // 2)]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    for name, task in TASKS.items():
        common = COMMON.replace("NAME", name).replace("DATA", str(data))
        (folder / f"{name}.yaml").write_text(common + task, "utf-8")
