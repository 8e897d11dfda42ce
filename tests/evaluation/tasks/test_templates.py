"""The paper's templates, letter by letter, and what is told apart as released."""

from __future__ import annotations

import pytest

from pangu_alpha.evaluation.tasks.catalog import load_tasks

TASKS = load_tasks()
# Table 7 of the paper, with the names of our fields. Half-width ? and : and the blanks are as printed.
PAPER = {
    "cmrc2018": "阅读文章：{passage}\n问：{question}\n答：",
    "drcd": "阅读文章：{passage}\n问：{question}\n答：",
    "dureader": "阅读文章：{passage}\n问：{question}\n答：",
    "webqa": "问：{question}\n答：",
    "pd": "{passage}{query}",
    "cft": "{passage}{query}",
    "cmrc2017": "{passage}{query}",
    "wplc": "{before}{choice}",
    "chid": "{before}{choice}{after}",
    "cmrc2019": "{before}{choice}{after}",
    "c3": "问: {question}\n答:{choice}\n该答案来自对话: {passage}",
    "cmnli": "{first}?{label}，{second}",
    "ocnli": "{first}?{label}，{second}",
    "tnews": "这是关于{label}的文章：{passage}",
    "iflytek": "这是关于{label}的应用程序：{passage}",
    "afqmc": "下面两个句子语义{label}：{first}。{second}",
    "csl": "摘要：{abstract}，关键词：{keywords}{label}真实关键词",
}
RELEASED = {
    "cmrc2018": "阅读文章：{passage}\n问：{question}\n答：",
    "dureader": "阅读：{passage} 问：{question}？答：",
    "webqa": "问：{question}\n答：",
    "cmrc2019": "\n{before}{choice}{after}",
    "c3": "问：{question}\n答：{choice}\n该答案来自对话：{passage}",
    "cmnli": "{first}？{label}，{second}",
    "ocnli": "{first}？{label}，{second}",
    "tnews": "这是关于{label}的文章：{passage}",
    "iflytek": "这是关于{label}的应用程序：{passage}",
    "afqmc": "下面两个句子语义{label}：“{first}”；“{second}”",
    "csl": "摘要：{abstract},关键词：{keywords}{label}真实关键词",
}
WORDS = {
    "ocnli": {"entailment": "对", "neutral": "或许", "contradiction": "错"},
    "cmnli": {"entailment": "对", "neutral": "或许", "contradiction": "错"},
    "afqmc": {"0": "不同", "1": "相同"},
    "csl": {"0": "不是", "1": "是"},
}
LABELS = [
    *map(
        "".join, zip(*[iter("故事文化娱乐体育财经房产汽车教育科技军事旅游国际股票农业电竞")] * 2, strict=True)
    )
]
# What each score counts (spec of the tasks), the number of examples of the few-shot column.
SCORING = {
    "tnews": "released",
    "iflytek": "released",
    "afqmc": "released",
    "c3": "released_c3",
    "csl": "released_csl",
}
SHOTS = {
    "cmrc2018": 5, "drcd": 5, "dureader": 6, "webqa": 8, "pd": 3, "cft": 3, "cmrc2017": 3, "chid": 3,
    "cmrc2019": 2, "cmnli": 12,
    "ocnli": 6, "tnews": 6, "iflytek": 3, "afqmc": 4, "csl": 10, "cluewsc2020": 14, "c3": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_templates_are_as_printed(name):
    template = TASKS[name].templates["paper"]
    assert template.prefix + template.scored == PAPER[name]
    assert template.separator == "\n" and template.scoring == "exact"
    if name in WORDS:
        assert template.words == WORDS[name]


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_codes_templates(name):
    template = TASKS[name].templates["released"]
    assert template.prefix + template.scored == RELEASED[name]
    assert template.scoring == SCORING.get(name, "exact")
    assert template.separator == ("\n\n" if name in ("webqa", "csl") else "\n")


def test_what_else_the_released_code_does():
    assert TASKS["ocnli"].templates["released"].words["neutral"] == "或"
    assert TASKS["ocnli"].templates["figure10"].prefix == "{first}，{label}?"
    webqa = TASKS["webqa"].templates["released"]
    assert webqa.stop == ("\n问",) and webqa.max_new_tokens == 50
    # a nucleus of p * T of the undivided probabilities: what dividing probabilities by T comes to
    nuclei = {
        "cmrc2018": 0.9 * 0.8,
        "drcd": 0.9 * 0.8,
        "dureader": 0.9 * 0.7,
        "cft": 0.1 * 0.9,
        "pd": 0.1 * 0.9,
    }
    for name, nucleus in nuclei.items():
        assert TASKS[name].templates["released"].sampling == {
            "top_p": pytest.approx(nucleus), "temperature": 1.0,
        }  # fmt: skip
    assert TASKS["cft"].templates["released"].extract == "gold_length"
    assert TASKS["cmrc2017"].templates["released"].max_new_tokens == 4


def test_the_papers_decoding():
    drawn = {
        name: TASKS[name].templates["paper"].sampling for name in TASKS if "paper" in TASKS[name].templates
    }
    assert drawn["cmrc2018"] == drawn["drcd"] == {"top_p": 0.8, "temperature": 0.8}
    assert drawn["dureader"] == {"top_p": 0.9, "temperature": 0.7}
    assert drawn["webqa"] == {"top_k": 5}
    assert drawn["cmrc2017"] == {"top_p": 0.9, "temperature": 1.0}
    assert drawn["cft"] == drawn["pd"] == {}  # top-k 1: greedy


def test_numbers_of_candidates_and_examples():
    assert {name: TASKS[name].paper_shots for name in SHOTS} == SHOTS
    assert TASKS["tnews"].ways == TASKS["iflytek"].ways == TASKS["fewclue_tnews"].ways == 4
    assert TASKS["tnews_all"].ways is None and TASKS["fewclue_iflytek_all"].ways is None
    assert [*TASKS["tnews"].templates["paper"].words.values()] == LABELS
    assert len(TASKS["tnews_all"].templates["paper"].words) == 15


def test_every_task_of_the_paper_and_of_fewclue_is_there():
    fewclue = ("bustm", "chid", "cluewsc", "csl", "csldcp", "eprstmt", "iflytek", "ocnli", "tnews")
    assert {f"fewclue_{name}" for name in fewclue} <= TASKS.keys()
    assert {*PAPER, "cluewsc2020"} <= TASKS.keys()
    for name in ("ocnli", "cmnli", "c3", "chid", "cmrc2018", "drcd", "fewclue_bustm", "fewclue_ocnli"):
        assert "opencompass" in TASKS[name].templates


def test_words_may_hold_fields_and_examples_end_as_their_item():
    template = TASKS["cluewsc2020"].templates["ours"]
    values = {"before": "小王没来，因为", "name": "小王", "pronoun": "他", "after": "病了"}
    assert template.solved({**values, "label": "true"}) == "小王没来，因为小王病了"
    assert template.solved({**values, "label": "false"}) == "小王没来，因为他病了"
    asked = TASKS["cmrc2018"].templates["paper"]
    assert asked.solved({"passage": "文", "question": "谁", "answer": "我"}) == "阅读文章：文\n问：谁\n答：我"
