"""lm-evaluation-harness with our model: the figures are those of the scorer, and all of it works offline."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lm_eval")

CONTEXT = 128
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
def evaluate(model, data):
    """evaluate(task, shots, path): what the harness finds."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from pangu_alpha.integrations.lm_eval_tasks import FOLDER

    def run(task, shots=0, path=FOLDER):
        manager = TaskManager(include_path=str(path), include_defaults=False, metadata={"data": str(data)})
        return simple_evaluate(model=model, tasks=[task], num_fewshot=shots, task_manager=manager,
                               bootstrap_iters=0, log_samples=True)  # fmt: skip

    return run


def ours(scorer, pairs):
    """Sums of nats by the scorer, and how many borders moved."""
    from pangu_alpha.evaluation.encode_pair import PairEncoder

    encoder = PairEncoder(scorer.tokenizer, scorer.end_of_document)
    return [float(nats.sum()) for nats in scorer.nats(encoder(pairs))], encoder.moved


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
        gold = sample["doc"]["gold"]
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


@pytest.mark.parametrize("name", ["tnews", "ocnli", "chid"])
def test_shots_come_from_the_training_file_and_end_like_each_other(name, evaluate, model):
    found = evaluate(f"pangu_fewclue_{name}", shots=2)
    for sample in found["samples"][f"pangu_fewclue_{name}"]:
        pairs = texts_of(sample)
        assert all(context.count("\n") == 2 and "\n\n" not in context for context, _ in pairs)
        if name == "tnews":
            shown = pairs[0][0].split("\n")[:2]
            sentences = {text for _, text in SENTENCES[:3]}
            assert all(each.split("：")[1] in sentences for each in shown)
        sums, _ = ours(model.scorer, pairs)
        np.testing.assert_allclose(np.negative(logs_of(sample)), sums, rtol=0, atol=1e-3)


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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"label": 104, "sentence": "x"}\n{"label": 104}\n', "line 2: not a row of this set, KeyError"),
        ('{"label": 999, "sentence": "x"}\n', "line 1: not a row of this set, ValueError: '999' is not"),
        ('{"label": 104,\n', "line 1"),
        ("[]\n", "line 1: not a JSON object"),
    ],
)
def test_a_wrong_row_is_named(content, words, tmp_path, data):
    from pangu_alpha.integrations.lm_eval_tasks import fewclue

    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data/FewCLUE/datasets/tnews/test_public.json").write_text(content, "utf-8")
    with pytest.raises(ValueError) as caught:
        fewclue.load(
            "tnews", "{label}", "{sentence}", data=str(tmp_path), words={"104": "财经", "103": "体育"}
        )
    assert "tnews/test_public.json" in str(caught.value) and words in str(caught.value)


def test_a_folder_without_the_files_is_named(tmp_path, monkeypatch):
    from pangu_alpha.integrations.lm_eval_tasks import fewclue

    monkeypatch.delenv("PANGU_EVALUATION_DATA", raising=False)
    with pytest.raises(ValueError, match=f"{tmp_path}: has no bustm/test_public.json"):
        fewclue.load("bustm", "", "", data=str(tmp_path))
    with pytest.raises(ValueError, match="no folder of FewCLUE's files: name it in PANGU_EVALUATION_DATA"):
        fewclue.load("bustm", "", "")


@pytest.mark.parametrize("ways", [2, 4, 7])
def test_drawn_labels_are_a_function_of_the_row(ways):
    from pangu_alpha.integrations.lm_eval_tasks.fewclue import Documents

    words = {str(n): f"word{n}" for n in range(15)}
    make = Documents("{label}", "{sentence}", words, ways=ways)
    make.learn_labels([])
    rows = [{"label": n % 15, "sentence": str(n)} for n in range(600)]
    made = [make("", row) for row in rows]
    assert [make("", row) for row in rows[::-1]][::-1] == made
    assert all(len({*each["contexts"]}) == ways for each in made)
    assert all(each["contexts"][each["gold"]] == f"word{n % 15}" for n, each in enumerate(made))
    places = np.bincount([each["gold"] for each in made], minlength=ways)
    expected = 600 / ways
    assert ((places - expected) ** 2 / expected).sum() < 25  # chi squared with at most 6 degrees: p > .0003
