"""Prompts that fit: whole examples are dropped first, then the document is cut; both are counted."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import hand_made
import numpy as np
import pytest
from oracles import Network, Reader, plans_of

from pangu_alpha.evaluation.running.answers import extract
from pangu_alpha.evaluation.running.candidates import choose_candidates, pick
from pangu_alpha.evaluation.running.plan import check_lengths
from pangu_alpha.evaluation.running.prompts import most_ids
from pangu_alpha.evaluation.tasks.catalog import load_tasks
from pangu_alpha.evaluation.tasks.item import Item, TaskFilesError
from pangu_alpha.text.vocabulary import train_vocabulary

TASKS = load_tasks()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A small vocabulary that knows the letters of U+FDFA, each as a piece of its own."""
    letters = [*dict.fromkeys(unicodedata.normalize("NFKC", "\ufdfa").replace(" ", ""))]
    texts = [*hand_made.TEXTS, *letters] * 8
    return train_vocabulary(texts, tmp_path_factory.mktemp("v") / "vocab.model", 116)


def prompts(data, name, context=4096, shots=0, seed=0, template=None):
    (plan,) = plans_of(data, [name], (shots,), (seed,), template)
    maker = plan.maker(Reader(context))
    return plan, [maker.make(item) for item in plan.data.items]


def test_examples_stand_before_the_item_as_the_paper_shows_it(eval_data):
    plan, made = prompts(eval_data, "tnews", shots=2)
    prompt = made[0]
    first, second = (example for example in plan.maker(Reader()).chooser.choose(plan.data.items[0]))
    blocks = [plan.template.solved({**each.fields, **each.choices[each.gold]}) for each in (first, second)]
    head, tail = prompt.texts[prompt.item.gold]
    assert head == f"{blocks[0]}\n{blocks[1]}\n这是关于故事的文章：" and tail == prompt.item.fields["passage"]
    assert prompt.shots == (first.id, second.id) and len(prompt.texts) == 4
    _, asked = prompts(eval_data, "webqa", shots=1, template="released")
    assert asked[0].texts[0][0].count("\n\n问：") == 1 and asked[0].texts[0][1] == ""


def test_whole_examples_are_dropped_the_last_drawn_first(eval_data):
    _, whole = prompts(eval_data, "ocnli", shots=3)
    longest = [max(len(head + tail) for head, tail in each.texts) for each in whole]
    _, fitted = prompts(eval_data, "ocnli", context=min(longest) - 1, shots=3)
    for prompt, all_shown in zip(fitted, whole, strict=True):
        assert prompt.dropped == 1 and prompt.shots == all_shown.shots[:2] and prompt.cut == 0
        assert all(len(head + tail) <= min(longest) - 1 for head, tail in prompt.texts)


def test_then_the_document_is_cut_at_a_sentence(eval_data):
    _, whole = prompts(eval_data, "cmrc2018", shots=2, template="greedy")
    asked = whole[0].texts[0][0].rindex("阅读文章")
    size = len(whole[0].texts[0][0]) - asked
    _, fitted = prompts(eval_data, "cmrc2018", context=size + 32 - 4, shots=2, template="greedy")
    prompt = fitted[0]
    assert prompt.texts[0][0] == "阅读文章：银行今天下调了利率。\n问：何时建成？\n答："
    assert prompt.dropped == 2 and prompt.cut == len("该桥建于1950年，全长000米。")
    assert prompt.item.fields["question"] == "何时建成？"


def test_both_sides_of_a_blank_are_cut_outwards(eval_data):
    item = Item(
        "1",
        "f, line 1",
        {"before": "甲。" * 30 + "他说", "after": "呢。" + "乙。" * 30},
        "",
        ({"choice": "一日千里"}, {"choice": "百花齐放"}),
        0,
    )
    (plan,) = plans_of(eval_data, ["fewclue_chid"])
    prompt = plan.maker(Reader(30)).make(item)
    head, tail = prompt.texts[0]
    assert head.endswith("甲。他说") and tail.startswith("一日千里呢。乙。") and tail.endswith("。")
    assert len(head + tail) <= 30 and prompt.cut == 124 - len(head) - len(tail) + 4


def test_what_does_not_fit_at_all_is_refused_before_the_network_is_loaded(eval_data):
    plans = plans_of(eval_data, ["cmrc2018", "webqa", "tnews"], (0, 2))
    with pytest.raises(TaskFilesError) as error:
        check_lengths(plans, Reader(40))
    said = str(error.value)
    assert (
        "cmrc2018_dev.json, question D0_Q0: longer than the context of 40 tokens even without its passage"
        in said
    )
    assert "me_test.ann.json, Q_1: longer than the context of 40 tokens even without examples" in said
    assert said.count("question D0_Q0") == 1 and "tnews" not in said


def test_what_is_dropped_and_cut_is_said(eval_data):
    notes = check_lengths(plans_of(eval_data, ["cmrc2018", "tnews"], (0, 3)), Reader(70))
    assert [note.partition(":")[0] for note in notes] == [
        "cmrc2018, 0-shot, seed 0", "cmrc2018, 3-shot, seed 0", "tnews, 3-shot, seed 0",
    ]  # fmt: skip
    assert "10 of 10 items lose examples, 10 also text of their document" in notes[1]


def test_the_longest_candidate_decides_whether_a_text_fits(eval_data):
    """One label's name may be longer in tokens, though not in characters."""

    class Wide(Reader):
        def __init__(self, context):
            super().__init__(context)
            self.tokenizer.encode = lambda text: [7] * (len(text) + 3 * text.count("农"))

    (plan,) = plans_of(eval_data, ["tnews_all"])
    item = plan.data.items[0]
    size = len("这是关于农业的文章：") + len(item.fields["passage"])
    assert plan.maker(Wide(size + 3)).make(item).cut == 0
    assert plan.maker(Wide(size + 2)).make(item).cut > 0


@pytest.mark.parametrize("longer", ["\ufdfa", "㌀", "㈱", "ﷻ", " ", "\n", "𠀀", "e\u0301", "\ud800"])
def test_no_character_has_more_ids_than_the_bound(longer, tokenizer):
    """NFKC makes 18 characters of U+FDFA, so that no fixed number of ids a character is a bound."""
    for text in (longer, longer * 50, f"桥{longer}" * 20):
        assert len(tokenizer.encode(text)) <= most_ids(text)
    if longer == "\ufdfa":
        assert len(tokenizer.encode(longer * 50)) > 4 * 50


def test_a_text_of_long_characters_is_cut_to_the_context(eval_data, tokenizer):
    (plan,) = plans_of(eval_data, ["tnews"])
    reader = Reader(64)
    reader.tokenizer = tokenizer
    item = replace(plan.data.items[0], fields={"passage": "\ufdfa" * 12})
    prompt = plan.maker(reader).make(item)
    assert prompt.cut > 0
    assert max(len(tokenizer.encode(head + tail)) for head, tail in prompt.texts) <= 64


def test_examples_may_show_only_the_sentence_with_their_answer(eval_data):
    plan, made = prompts(eval_data, "cmrc2018", shots=5, template="dynamic")
    blocks = made[0].texts[0][0].split("阅读文章：")[1:]
    assert len(blocks) == 6 and blocks[-1].startswith("该桥建于1950年，全长000米。银行今天下调了利率。")
    for block, name in zip(blocks, made[0].shots, strict=False):
        place, what = name[1], name[-1]
        answer = f"{place}00米" if what == "1" else f"19{50 + int(place)}年"
        assert block.startswith(f"试：该桥建于19{50 + int(place)}年，全长{place}00米。\n问：")
        assert block.endswith(f"答：{answer}\n")
    assert plan.task.paper_shots == 5
    long = [replace(each, fields={**each.fields, "passage": "很" * 80 + each.fields["passage"]})
            for each in plan.data.shots[0]]  # fmt: skip
    far = [replace(each, references=("别处",)) for each in plan.data.shots[0]]
    for examples in (long, far):
        shown = replace(plan, data=replace(plan.data, shots=(tuple(examples),)))
        assert shown.maker(Reader()).make(plan.data.items[0]).shots == ()


def test_four_candidates_of_a_seed(eval_data):
    places, labels = [], []
    for seed in range(40):
        for item in plans_of(eval_data, ["tnews"])[0].data.items:
            chosen = choose_candidates(item, TASKS["tnews"], seed)
            assert len(chosen.choices) == 4 == len({each["label"] for each in chosen.choices})
            assert chosen.target == item.target
            places.append(chosen.gold)
            labels += [each["label"] for each in chosen.choices if each["label"] != item.target]
    counts = np.bincount(places, minlength=4)
    assert ((counts - 150) ** 2 / 150).sum() < 16.27  # chi-squared, 3 degrees of freedom, p = 0.001
    counts = np.unique(labels, return_counts=True)[1]
    assert len(counts) == 15 and ((counts - 120) ** 2 / 120).sum() < 36.1  # 14 degrees of freedom


def test_equal_scores_are_chance_and_are_counted(eval_data):
    item = plans_of(eval_data, ["fewclue_chid"])[0].data.items[0]
    chosen = [pick([1.0] * 7, replace(item, id=str(n)), "t", 0) for n in range(700)]
    counts = np.bincount([place for place, _ in chosen], minlength=7)
    assert all(tied for _, tied in chosen) and ((counts - 100) ** 2 / 100).sum() < 22.46  # 6, p = 0.001
    assert pick([2.0, 1.0, 1.5], replace(item, choices=item.choices[:3]), "t", 0) == (1, False)


def test_candidates_of_one_text_are_no_tie(eval_data):
    item = plans_of(eval_data, ["c3"])[0].data.items[5]
    for seed in range(20):
        assert pick([3.0, 1.0, 1.0, 2.0], item, "c3", seed) == (1, False)


def test_shuffled_candidates_give_shuffled_scores(eval_data):
    (plan,) = plans_of(eval_data, ["fewclue_chid"])
    network, item = Network(), plan.data.items[0]
    maker = plan.maker(network)
    order = [3, 0, 6, 1, 5, 2, 4]
    shuffled = replace(item, choices=tuple(item.choices[n] for n in order), gold=order.index(item.gold))
    texts, others = maker.make(item).texts, maker.make(shuffled).texts
    assert [texts[n] for n in order] == [*others]


@pytest.mark.parametrize(
    ("name", "template", "text", "reference", "answer"),
    [
        ("cmrc2018", "paper", " 1957年 ", "1957年", "1957年"),
        # The whole text: the metric drops punctuation and looks at its beginning. Cut to the length of the
        # right word, as it was before, "equal" would be the same as "word", and would tell the length.
        ("cft", "paper", "“啄木鸟”每天", "啄木鸟", "“啄木鸟”每天"),
        ("cft", "paper", "苹果树", "苹果", "苹果树"),
        ("cmrc2017", "paper", "老虎。他说", "老虎", "老虎。他说"),
        ("cft", "released", "老虎。他说", "老虎", "老虎"),
        ("cmrc2017", "paper", "", "老虎", ""),
    ],
)
def test_the_answer_in_a_generated_text(name, template, text, reference, answer):
    assert extract(TASKS[name].templates[template], text, reference, Reader().tokenizer) == answer
