"""lm-evaluation-harness with our model: the figures are those of the scorer, and all of it works offline."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip(
    "lm_eval", reason="lm-evaluation-harness is the extra [evaluation]; it is not installed here"
)
sys.path.append(str(Path(__file__).parents[1] / "evaluation"))

import hand_made

from pangu_alpha.integrations.lm_eval_tasks import FOLDER

CONTEXT = 128
FILES = sorted(path for path in FOLDER.glob("*.yaml") if not path.name.startswith("_"))
OWN = """
quiz:
  title: Questions
  form: choice_lines
  files: ["*.jsonl"]
  family: choice
  metrics: [accuracy]
  fields: {question: q}
  label: right
  templates: {plain: {prefix: "问：{question}\\n答：", scored: "{choice}"}}
"""
NEWS = {104: "财经", 103: "体育", 101: "文化", 109: "科技", 112: "旅游"}
SENTENCES = [
    (104, "银行今天下调了利率"), (104, "股价在午后回升, 成交量放大"), (103, "主队在最后一分钟进球"),
    (103, "她游了四圈, 破了纪录"), (101, "古城里修好了一座戏台"), (101, "诗人的手稿今天展出"),
    (109, "新的电池充电只要十分钟"), (109, "探测器\t落在月球背面"), (112, "山里的春天 适合徒步"),
    (112, "海边的旅馆都订满了"),
]  # fmt: skip
PREMISES = [
    ("他在厨房做饭", "他在家里", "entailment"), ("她明天去北京", "她今天在北京", "contradiction"),
    ("店里有三个人", "店里有三个客人", "neutral"), ("雨下了一夜", "夜里下雨了", "entailment"),
    ("桥还没有修好", "桥已经通车", "contradiction"), ("我看过这本书", "这本书很有名", "neutral"),
]  # fmt: skip
IDIOMS = ["一日千里", "百花齐放", "杯水车薪", "画蛇添足", "守株待兔", "井底之蛙", "亡羊补牢"]
BLANKS = [
    ("城市的变化#idiom#。", 0), ("#idiom#, 你不要再写了。", 3), ("这点钱对他们来说是#idiom#, 没有用。", 2),
    ("现在修墙还不晚, #idiom#", 6),
]  # fmt: skip


def lines(rows):
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of the form of FewCLUE's, with rows of our own."""
    folder = tmp_path_factory.mktemp("data")
    news = [{"label": label, "sentence": text, "id": n} for n, (label, text) in enumerate(SENTENCES)]
    pairs = [{"sentence1": a, "sentence2": b, "label": c, "id": n} for n, (a, b, c) in enumerate(PREMISES)]
    blanks = [
        {"id": n, "candidates": IDIOMS, "content": text, "answer": right}
        for n, (text, right) in enumerate(BLANKS)
    ]
    for name, rows in (("tnews", news), ("ocnli", pairs), ("chid", blanks)):
        part = folder / "FewCLUE" / "datasets" / name
        part.mkdir(parents=True)
        (part / "train_0.json").write_text(lines(rows[:3]), "utf-8")
        (part / "test_public.json").write_text(lines(rows[1:]), "utf-8")
    return folder


@pytest.fixture(scope="module")
def every_task(tmp_path_factory):
    """Made-up files of every task."""
    folder = tmp_path_factory.mktemp("every")
    hand_made.write_all(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, save_run):
    """A run's folder whose vocabulary knows most of the texts."""
    from pangu_alpha.text.vocabulary import train_vocabulary

    folder = tmp_path_factory.mktemp("checkpoint")
    texts = [text for _, text in SENTENCES] + [a + "。" + b for a, b, _ in PREMISES] + IDIOMS * 3
    texts += [f"这是关于{word}的文章：" for word in NEWS.values()] + [
        f"的{each}？对，错，或许" for each in IDIOMS
    ]
    train_vocabulary(texts * 4, folder / "words.model", 170)
    sizes = {"hidden_size": 32, "num_layers": 3, "num_heads": 4, "seq_length": CONTEXT}
    return save_run(folder, folder / "words.model", **sizes)


@pytest.fixture(scope="module")
def model(checkpoint):
    """The harness's model."""
    from pangu_alpha.integrations.lm_eval import PanguAlphaLM

    return PanguAlphaLM(str(checkpoint), batch_size=8)


@pytest.fixture(scope="module")
def evaluate(model, data, checkpoint):
    """evaluate(tasks, shots, path, data): what the harness finds, without a draw in generated answers."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    def run(task, shots=0, path=FOLDER, data=data, **more):
        metadata = {"data": str(data), "checkpoint": str(checkpoint), **more}
        manager = TaskManager(include_path=str(path), include_defaults=False, metadata=metadata)
        tasks = task if isinstance(task, list) else [task]
        greedy = {"do_sample": False}
        return simple_evaluate(model=model, tasks=tasks, num_fewshot=shots, task_manager=manager,
                               gen_kwargs=greedy, bootstrap_iters=0, log_samples=True)  # fmt: skip

    return run


def ours(scorer, pairs):
    """Sums of nats by the scorer, and how many borders moved."""
    from pangu_alpha.evaluation.encode_pair import PairEncoder

    encoder = PairEncoder(scorer.tokenizer, scorer.end_of_document)
    return [float(nats.sum()) for nats in scorer.nats(encoder(pairs))], encoder.moved


def by_evaluate(checkpoint, data, out, *words):
    """What `evaluate.py tasks` finds, by task and number of examples: figures, and samples in their order."""
    from pangu_alpha.cli.evaluate.command import main

    given = ["tasks", "--checkpoint", str(checkpoint), "--data", str(data), "--output", str(out), *words]
    assert main([*given, "--scoring", "sum", "--device", "CPU"]) == 0
    (file,) = out.glob("results_*.json")
    found = {}
    for name, figures in json.loads(file.read_text("utf-8"))["results"].items():
        about = json.loads(file.read_text("utf-8"))["config"]["pangu_alpha"]["results"][name]
        (samples,) = out.glob(f"samples_{name}_*.jsonl")
        rows = [json.loads(line) for line in samples.read_text("utf-8").splitlines()]
        found[about["task"], about["shots"]] = SimpleNamespace(figures=figures, samples=rows)
    return found


def expected_texts(name, doc_id):
    """The candidates' texts and the right one's place, written out once more; None where a draw decides."""
    if name == "ocnli":
        first, second, label = PREMISES[1:][doc_id]
        labels = ["entailment", "neutral", "contradiction"]
        return [(f"{first}?{word}，", second) for word in ("对", "或许", "错")], labels.index(label)
    if name == "chid":
        text, right = BLANKS[1:][doc_id]
        before, after = text.split("#idiom#")
        return [(before, idiom + after) for idiom in IDIOMS], right
    return None


def texts_of(sample):
    """(context, continuation) of each candidate of a row of the harness's samples."""
    return [tuple(each) for each in sample["arguments"]]


def logs_of(sample):
    """The model's answer to each candidate."""
    return [float(answers[0][0]) for answers in sample["resps"]]


@pytest.mark.parametrize("name", ["tnews", "ocnli", "chid"])
def test_sums_and_accuracy_are_the_scorers(name, evaluate, model):
    found = evaluate(f"pangu_fewclue_{name}")
    samples = found["samples"][f"pangu_fewclue_{name}"]
    right, total = 0, {"tnews": 9, "ocnli": 5, "chid": 3}[name]
    assert len(samples) == total
    for sample in samples:
        pairs = texts_of(sample)
        gold = sample["target"]
        if (texts := expected_texts(name, sample["doc_id"])) is not None:
            assert (pairs, gold) == texts
        else:
            label, sentence = SENTENCES[1:][sample["doc_id"]]
            assert len(pairs) == len({*pairs}) == 4 and {text for _, text in pairs} == {sentence}
            assert pairs[gold][0] == f"这是关于{NEWS[label]}的文章："
        sums, _ = ours(model.scorer, pairs)
        np.testing.assert_allclose(np.negative(logs_of(sample)), sums, rtol=0, atol=1e-3)
        right += int(np.argmin(sums)) == gold
        assert sample["acc"] == float(np.argmin(sums) == gold)
    assert found["results"][f"pangu_fewclue_{name}"]["acc,none"] == pytest.approx(right / total)


@pytest.mark.parametrize("shots", [0, 2])
def test_the_harness_gives_what_evaluate_tasks_gives(shots, evaluate, checkpoint, data, tmp_path):
    """The same texts, sums to 1e-3, accuracies, for tnews, ocnli and chid; with examples too."""
    names = [f"fewclue_{name}" for name in ("tnews", "ocnli", "chid")]
    expected = by_evaluate(checkpoint, data, tmp_path, "--tasks", ",".join(names), "--shots", str(shots))
    found = evaluate([f"pangu_{name}" for name in names], shots)
    for name in names:
        ours, samples = expected[name, shots], found["samples"][f"pangu_{name}"]
        assert len(samples) == len(ours.samples) > 2
        for sample, own in zip(samples, ours.samples, strict=True):
            asked = [tuple(each.values()) for each in own["arguments"].values()]
            assert texts_of(sample) == asked
            assert texts_of(sample)[0][0].count("\n") == shots and str(sample["target"]) == str(own["target"])
            np.testing.assert_allclose(logs_of(sample), logs_of(own), rtol=0, atol=1e-3)
            assert sample["acc"] == own["acc"]
        assert found["results"][f"pangu_{name}"]["acc,none"] == ours.figures["acc,none"]


@pytest.mark.parametrize("shots", [0, 2])
def test_so_it_does_for_every_task(shots, evaluate, checkpoint, every_task, tmp_path):
    """All files are made up; answers are generated greedily, because the harness has no seed for draws."""
    names = [path.stem for path in FILES if path.stem != "dureader"]  # its answers need the whole context
    words = ("--tasks", ",".join(names), "--shots", str(shots), "--seed", "1", "--greedy")
    expected = by_evaluate(checkpoint, every_task, tmp_path, *words)
    found = evaluate([f"pangu_{name}" for name in names], shots, data=every_task, seed=1)["results"]
    assert len(names) >= 28
    for name in names:
        figures = {key.split(",")[0]: value for key, value in found[f"pangu_{name}"].items() if "," in key}
        own = expected[name, shots].figures
        for key, value in own.items():
            if "," in key and "stderr" not in key:
                assert figures[key.replace(",", "_").removesuffix("_none")] == pytest.approx(value), (
                    name,
                    key,
                )


def test_bits_per_byte_of_long_texts(evaluate, model, tmp_path):
    texts = ["".join(text for _, text in SENTENCES * 3), SENTENCES[0][1]]
    (tmp_path / "texts.json").write_text(lines({"text": text} for text in texts), "utf-8")
    (tmp_path / "rolling.yaml").write_text(
        f"""task: rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path}/texts.json}}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
""",
        "utf-8",
    )
    found = evaluate("rolling", path=tmp_path)["results"]["rolling"]["bits_per_byte,none"]
    nats, scorer = 0.0, model.scorer
    for text in texts:
        ids = scorer.tokenizer.encode(text)
        nats += scorer.nats([([scorer.end_of_document], [scorer.end_of_document, *ids[:CONTEXT]])])[0].sum()
        for start in range(CONTEXT, len(ids), CONTEXT):  # each window is full, and only its new ids count
            stop = min(start + CONTEXT, len(ids))
            window = ids[stop - CONTEXT - 1 : stop]
            nats += scorer.nats([(window[: start - stop], window)])[0].sum()
    assert len(scorer.tokenizer.encode(texts[0])) > 2 * CONTEXT
    assert found == pytest.approx(nats / math.log(2) / sum(len(text.encode()) for text in texts), abs=1e-5)


def request(*args):
    """What the harness asks."""
    return SimpleNamespace(args=args)


def test_a_border_that_moves_is_counted_and_nothing_is_left_unscored(model, caplog):
    pairs = [("银行今天下调了利", "率"), ("她", "游了四圈"), ("这是关于体育的文章：\n", "主队"), ("", "古城")]
    with caplog.at_level(logging.INFO):
        answers = model.loglikelihood([request(*pair) for pair in pairs])
    sums, moved = ours(model.scorer, pairs)
    np.testing.assert_allclose([-log for log, _ in answers], sums, rtol=0, atol=1e-3)
    assert all(log < 0 for log, _ in answers)
    assert f"4 requests; in {moved} the context's ids" in caplog.text


def test_greedy_is_what_generation_gives(model):
    context = "这是关于文化的文章："
    (text,) = model.generate_until([request(context, {"until": ["没有"], "max_gen_toks": 1})])
    answers = model.loglikelihood([request(context, text), request(context, "银行")])
    ids = model.tok_encode(context + text)
    assert answers[0][1] == (ids[:-1] == model.tok_encode(context))
    assert not answers[1][1]


def test_generation_stops_before_the_stop_text_and_answers_stay_in_order(model, caplog):
    contexts = ["这是关于体育的文章：", "他在家里", "雨下了一夜"]
    whole = model.generate_until([request(each, {"until": [], "max_gen_toks": 8}) for each in contexts])
    assert [len(each) > 2 for each in whole] == [True] * 3
    stop = whole[1][2]
    given = [{"until": [stop, "龘"], "max_gen_toks": 8}, {"until": stop, "max_gen_toks": 8}]
    asked = [(contexts[0], given[1]), (contexts[1], given[0]), (contexts[2], given[1])]
    found = model.generate_until([request(*each) for each in asked])
    assert found == [each.split(stop)[0] for each in whole]
    assert "'龘' cannot be generated" in caplog.text
    drawn = {"until": [], "do_sample": True, "temperature": 0.9, "max_gen_toks": 8}
    assert model.generate_until([request(contexts[0], drawn)]) != whole[:1]


def test_a_long_context_loses_its_beginning_and_a_long_continuation_is_refused(model):
    context, end = "雨" * 300, "他在家里"
    before = model.cut
    ((found, _),) = model.loglikelihood([request(context, end)])
    ids = model.tok_encode(context + end)
    shared = len(model.tok_encode(context))
    expected = model.scorer.nats([(ids[-CONTEXT - 1 : shared], ids[-CONTEXT - 1 :])])[0].sum()
    assert found == pytest.approx(-expected, abs=1e-3) and model.cut == before + 1
    with pytest.raises(ValueError, match="request 1: its continuation has .* ids, but at most 128 can be"):
        model.loglikelihood([request(end, end), request(end, context)])


def test_the_harness_file_of_answers_is_of_one_checkpoint(model, tmp_path, checkpoint, save_run):
    from lm_eval.api.model import CacheHook, CachingLM

    from pangu_alpha.integrations.lm_eval import PanguAlphaLM

    asked = [request("他在", "家里")]
    first = CachingLM(model, str(tmp_path / "answers.db")).loglikelihood(asked)
    again = CachingLM(model, str(tmp_path / "answers.db"))
    assert again.loglikelihood(asked) == first and len(again.dbdict) == 2
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "seq_length": CONTEXT}
    (tmp_path / "other").mkdir()
    folder = save_run(tmp_path / "other", checkpoint / "vocab.model", **sizes)
    other = PanguAlphaLM(str(folder), batch_size="auto")
    with pytest.raises(ValueError, match="answers of another checkpoint"):
        CachingLM(other, str(tmp_path / "answers.db"))
    model.set_cache_hook(CacheHook(None))


def test_the_command_line_runs_offline_with_our_tasks(checkpoint, data, tmp_path):
    words = ["--model", "pangu_alpha", "--model_args", f"checkpoint={checkpoint}", "--batch_size", "8",
             "--tasks", "pangu_fewclue_tnews,pangu_fewclue_chid", "--output_path", str(tmp_path / "out"),
             "--log_samples"]  # fmt: skip
    command = [sys.executable, "-m", "pangu_alpha.integrations.lm_eval", *words]
    done = subprocess.run(
        command, env={**os.environ, "PANGU_EVALUATION_DATA": str(data)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(file.read_text("utf-8"))["results"]
    assert {name: each["acc,none"] >= 0 for name, each in results.items()} == {
        "pangu_fewclue_tnews": True, "pangu_fewclue_chid": True,
    }  # fmt: skip
    assert "|pangu_fewclue_chid" in done.stdout


def test_what_the_catalogue_refuses_the_harness_refuses(evaluate, tmp_path, monkeypatch):
    (tmp_path / "tnews").mkdir()
    (tmp_path / "tnews" / "test_public.json").write_text('{"label": 999, "sentence": "x"}\n', "utf-8")
    with pytest.raises(ValueError, match="tnews/test_public.json, line 1: 'label' must be one of 100"):
        evaluate("pangu_fewclue_tnews", data=tmp_path)
    with pytest.raises(ValueError, match="no file of task fewclue_bustm: looked for"):
        evaluate("pangu_fewclue_bustm", data=tmp_path)
    with pytest.raises(ValueError, match="task fewclue_tnews has only paper, released"):
        evaluate("pangu_fewclue_tnews", data=tmp_path, template="ours")
    with pytest.raises(ValueError, match="template released cuts answers at a number of tokens"):
        evaluate("pangu_cft", data=tmp_path, template="released")
    monkeypatch.delenv("PANGU_EVALUATION_DATA", raising=False)
    with pytest.raises(ValueError, match="no folder of evaluation files: name it in PANGU_EVALUATION_DATA"):
        evaluate("pangu_fewclue_tnews", data="")


def test_a_chat_is_refused(evaluate, data):
    from pangu_alpha.integrations.lm_eval_tasks.catalog_task import CatalogTask

    task = CatalogTask({"task": "pangu_fewclue_tnews", "metadata": {"data": str(data)}})
    with pytest.raises(ValueError, match="leave out --system_instruction and --apply_chat_template"):
        task.fewshot_context(task.task_docs[0], 0, apply_chat_template=True)
    with pytest.raises(ValueError, match="there is no task 'tnewz'"):
        CatalogTask({"task": "pangu_tnewz", "metadata": {"data": str(data)}})
    with pytest.raises(ValueError, match="wplc: its figure counts tokens"):
        CatalogTask({"task": "pangu_wplc", "metadata": {"data": str(data)}})


def test_an_own_task_of_yaml_needs_no_code(evaluate, checkpoint, tmp_path):
    (tmp_path / "quiz.jsonl").write_text(hand_made.own_choices(), "utf-8")
    (tmp_path / "own.yaml").write_text(OWN, "utf-8")
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "quiz.yaml").write_text(
        f"""include: {FOLDER}/_catalog.yaml
task: my_quiz
dataset_kwargs: {{task: quiz, task_file: {tmp_path}/own.yaml}}
""",
        "utf-8",
    )
    found = evaluate("my_quiz", path=tmp_path / "harness", data=tmp_path)
    words = ("--tasks", "quiz", "--task-file", str(tmp_path / "own.yaml"))
    own = by_evaluate(checkpoint, tmp_path, tmp_path / "out", *words)["quiz", 0]
    assert found["results"]["my_quiz"]["acc,none"] == own.figures["acc,none"]
    assert len(found["samples"]["my_quiz"]) == 10


def test_another_model_gets_the_whole_texts(data):
    """Without a checkpoint of ours, nothing is known of the model's context, so nothing is left out."""
    from pangu_alpha.integrations.lm_eval_tasks.catalog_task import CatalogTask

    task = CatalogTask({"task": "pangu_fewclue_ocnli", "metadata": {"data": str(data)}})
    (first, *_), number = task.task_docs, 0
    contexts = task.fewshot_context(first, 3)
    assert contexts[0].count("\n") == 2 and contexts[0].endswith(f"{PREMISES[1][number]}?对，")
    requests = task.construct_requests(first, task.fewshot_context(first, 0))
    assert [each.args for each in requests] == expected_texts("ocnli", 0)[0]


def test_figures_that_are_no_means_are_of_the_whole_set():
    """BLEU, and the assignment of CMRC2019: the harness's values are those of the metrics on all items."""
    from pangu_alpha.evaluation.metrics import metric
    from pangu_alpha.integrations.lm_eval_tasks import figures

    given, golds = ["第一季很好看", "南宁属于广西"], [["第一季相当精彩", "很好看"], ["南宁属于广西省"]]
    rows = [figures.of_item(["dureader"], *pair) for pair in zip(given, golds, strict=True)]
    whole = metric("dureader").compute(predictions=given, references=golds)
    for name, together in figures.aggregations(["dureader"], golds[0]).items():
        assert together([row[name] for row in rows]) == pytest.approx(
            whole[f"{name.removesuffix('_official')},official"]
        )
    blanks = [("p", [1.0, 1.2, 3.0], 1), ("p", [0.9, 2.0, 2.5], 0)]  # the worked value of the metric
    assert {name: together(blanks) for name, together in figures.of_passages().items()} == {
        "qac": 1.0,
        "pac": 1.0,
    }
