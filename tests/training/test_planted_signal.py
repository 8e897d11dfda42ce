"""A signal that is planted into training texts is found by the tasks: the whole way from text to accuracy."""

from __future__ import annotations

import json
import random

import pytest

from pangu_alpha.config.run import build_train_config
from pangu_alpha.data.preprocess import PreprocessConfig, preprocess
from pangu_alpha.evaluation.running.execute import compute_plan
from pangu_alpha.evaluation.running.finish import result_of
from pangu_alpha.evaluation.running.plan import make_plans
from pangu_alpha.evaluation.tasks.catalog import load_tasks
from pangu_alpha.evaluation.tasks.loading import load_sets
from pangu_alpha.text.vocabulary import train_vocabulary

TOPICS = {"103": ("体育", "球队比赛进胜负门将教练"), "104": ("财经", "银行利率股市债券资金价")}


def sentence(label, rng):
    return "".join(rng.choices(TOPICS[label][1], k=8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Training records of both topics, and 100 other sentences as evaluation items."""
    folder, rng = tmp_path_factory.mktemp("planted"), random.Random(4)
    texts = [f"这是关于{TOPICS[k][0]}的文章：{sentence(k, rng)}" for k in TOPICS for _ in range(600)]
    rng.shuffle(texts)
    (folder / "text.txt").write_text("\n\n".join(texts), "utf-8")
    train_vocabulary(texts, folder / "vocab.model", 60)
    preprocess(
        PreprocessConfig(
            (str(folder / "text.txt"),), str(folder / "vocab.model"), str(folder / "records"), seq_length=32
        )
    )
    rows = [
        {"label": label, "sentence": sentence(label, rng), "id": n} for n in range(50) for label in TOPICS
    ]
    swapped = [row | {"label": "103" if row["label"] == "104" else "104"} for row in rows]
    for name, several in (("right", rows), ("swapped", swapped)):
        path = folder / name / "tnews" / "dev.json"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in several), "utf-8")
    words = "\n".join(f'        "{key}": {topic}' for key, (topic, _) in TOPICS.items())
    (folder / "task.yaml").write_text(
        "planted:\n  title: t\n  form: labelled_lines\n  files: ['tnews/dev.json']\n  family: choice\n"
        "  metrics: [accuracy]\n  fields: {passage: sentence}\n  templates:\n    paper:\n"
        f"      prefix: '这是关于{{label}}的文章：'\n      scored: '{{passage}}'\n      words:\n{words}\n",
        "utf-8",
    )
    return folder


def test_it_is_found_and_swapped_labels_are_wrong(cpu, folder):
    from pangu_alpha.evaluation.scoring import Scorer
    from pangu_alpha.training.loop import train

    records = {"text": {"records": str(folder / "records")}}
    config = build_train_config(
        {
            "model": {"vocab_size": 60, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "seq_length": 32,
                      "dropout": 0.0},
            "data": {"train": records, "vocabulary": str(folder / "vocab.model")},
            "optim": {"learning_rate": 5e-3, "end_learning_rate": 5e-4, "warmup_steps": 20,
                      "decay_steps": 500},
            "run": {"output": str(folder / "run"), "steps": 500, "batch_size": 8, "device": "CPU",
                    "tensorboard": False, "peak_tflops": 0.1},
        }
    )  # fmt: skip
    assert train(config, "CPU") == 0
    scorer, task = Scorer(folder / "run"), load_tasks([folder / "task.yaml"])["planted"]
    found = {}
    for name in ("right", "swapped"):
        (plan,) = make_plans(load_sets([task], folder / name), (0,), (0,))
        found[name] = result_of(plan, compute_plan(scorer, plan))[0].main.value
    assert found["right"] > 0.9 and found["swapped"] < 0.1
