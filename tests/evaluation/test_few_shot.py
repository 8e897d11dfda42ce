"""The choice of examples: a function of seed, task, item and number, and of nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from pangu_alpha.evaluation.few_shot import ShotChooser, alike
from pangu_alpha.evaluation.tasks.catalog import load_tasks
from pangu_alpha.evaluation.tasks.item import Item
from pangu_alpha.evaluation.tasks.loading import load_sets

LABELS = ("a", "b", "c")


def item(name, text=None, label="a", group=""):
    choices = tuple({"label": each} for each in LABELS)
    return Item(name, name, {"text": text or f"text {name}"}, group, choices, LABELS.index(label))


POOL = [item(str(n), label=LABELS[min(n // 10, 2)]) for n in range(60)]  # 10 a, 10 b, 40 c


def ids(count=6, seed=0, target=None, pool=POOL, per_item=False, task="t"):
    chooser = ShotChooser(task, pool, count, seed, per_item)
    return [each.id for each in chooser.choose(target or item("x"))]


def test_the_order_of_the_pool_and_other_items_change_nothing():
    assert ids() == ids(pool=POOL[::-1]) and len(set(ids())) == 6
    chooser = ShotChooser("t", POOL, 6, 0)
    alone = [each.id for each in ShotChooser("t", POOL, 6, 0).choose(item("y"))]
    for name in "abcdef":
        chooser.choose(item(name))
    assert [each.id for each in chooser.choose(item("y"))] == alone


def test_each_argument_counts():
    assert len({tuple(ids(seed=seed)) for seed in range(20)}) == 20
    assert ids(task="u") != ids() and ids(count=7)[:6] != ids()  # a number is a draw of its own
    assert ids(target=item("y")) == ids(target=item("z"))  # fixed for a seed by default
    assert ids(target=item("y"), per_item=True) != ids(target=item("z"), per_item=True)
    assert ids(count=0) == []


def test_labels_are_balanced():
    by_label = {each.id: each.target for each in POOL}
    for seed in range(10):
        counts = Counter(by_label[name] for name in ids(seed=seed))
        assert set(counts.values()) == {2}
    first = {by_label[ids(count=1, seed=seed)[0]] for seed in range(20)}
    assert first == set(LABELS)  # no label is always the first


def test_fewer_examples_than_asked_for():
    assert sorted(ids(count=100), key=int) == [str(n) for n in range(60)]


def test_never_the_item_its_text_or_its_passage():
    drawn = ids()
    for name in drawn:
        itself = POOL[int(name)]
        without = ids(target=itself)
        assert name not in without and len(without) == 6
        same_text = item("new", text=itself.fields["text"], label="c")
        assert name not in ids(target=same_text)
    grouped = [replace(each, group=f"passage {n % 5}") for n, each in enumerate(POOL)]
    target = item("q", group="passage 3")
    assert all(int(name) % 5 != 3 for name in ids(pool=grouped, target=target))


def test_equal_abstracts_with_other_keywords_are_alike():
    one = Item("1", "", {"abstract": "本文研究桥梁的振动。", "keywords": "桥梁"})
    other = Item("2", "", {"abstract": "本文研究桥梁的振动。", "keywords": "振动"})
    assert alike(one, other) and not alike(one, Item("3", "", {"abstract": "本文", "keywords": "桥梁"}))


@pytest.mark.parametrize("name", load_tasks())
def test_no_task_shows_an_item_itself(name, eval_data):
    (found,) = load_sets([load_tasks()[name]], eval_data, range(5))
    for seed in (0, 4):
        for per_item in (False, True):
            chooser = ShotChooser(name, found.examples(seed), 4, seed, per_item)
            for each in found.items:
                shots = chooser.choose(each)
                assert not any(alike(shot, each) for shot in shots)
                assert len({shot.id for shot in shots}) == len(shots) >= 1


def test_a_seed_chooses_the_file_of_its_fold(eval_data):
    (found,) = load_sets([load_tasks()["fewclue_tnews"]], eval_data, [1, 7])
    assert [len(fold) for fold in found.shots] == [0, 15, 15, 0, 0]
    assert found.examples(7) is found.shots[2] and found.examples(1) is found.shots[1]
