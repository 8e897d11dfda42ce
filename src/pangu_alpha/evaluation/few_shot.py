"""Chooses the solved examples that stand before an item.

The choice is a function of seed, task, item and number, computed by hashes; it depends neither on the order
of the items nor on how many of them are evaluated. By default all items of a seed get the same examples, so
that the network reads them once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from pangu_alpha.evaluation.tasks.item import Item, rank

_SENTENCE = re.compile("[^。！？?]+[。！？?]?")  # as the released script of CMRC2018 divides a passage


class ShotChooser:
    """Chooses examples for the items of one task.

    Args:
        task: Name of the task.
        examples: Solved examples that may be shown.
        count: Number of examples, K.
        per_item: Whether each item gets examples of its own.
    """

    def __init__(
        self, task: str, examples: Sequence[Item], count: int, seed: int, per_item: bool = False
    ) -> None:
        self._task, self._count, self._seed, self._per_item = task, count, seed, per_item
        self._examples = examples
        self._ranked = lru_cache(maxsize=2)(self._rank)  # all items of a fixed choice share one ranking

    def choose(self, item: Item) -> tuple[Item, ...]:
        """Returns different examples in the order in which they were drawn; fewer if there are no more.

        Labels take turns, in an order that the seed decides. An example that is the item itself, has its
        text, or is about its passage is passed over, and the next of its label takes its place.
        """
        if self._count == 0:
            return ()
        queues = [self._allowed(queue, item) for queue in self._ranked(item.id if self._per_item else "")]
        drawn: list[Item] = []
        while queues and len(drawn) < self._count:
            left = []
            for queue in queues:
                example = next(queue, None)
                if example is not None:
                    left.append(queue)
                    drawn.append(example)
            queues = left
        return tuple(drawn[: self._count])

    def _rank(self, name: str) -> list[list[Item]]:
        """The examples of each label in the order of their hashes; one list where there are no labels."""
        key = (self._seed, self._task, name, self._count)
        by_label: dict[str, list[Item]] = {}
        for example in sorted(self._examples, key=lambda each: rank(*key, each.id)):
            by_label.setdefault(_label(example), []).append(example)
        return [by_label[label] for label in sorted(by_label, key=lambda each: rank(*key, "label", each))]

    @staticmethod
    def _allowed(queue: list[Item], item: Item) -> Iterator[Item]:
        return (example for example in queue if not alike(example, item))


def with_answer_sentence(example: Item) -> Item | None:
    """The example with only that sentence of its passage that holds the answer; None if no sentence does."""
    answer = example.references[0]
    sentences = _SENTENCE.findall(example.fields["passage"])
    found = next((sentence for sentence in sentences if answer in sentence), None)
    return None if found is None else replace(example, fields={**example.fields, "passage": found})


def alike(example: Item, item: Item) -> bool:
    """Whether an example would give an item away: it is the item, has its longest text, or its passage."""
    if example.fields == item.fields or (item.group and example.group == item.group):
        return True
    return _longest(example) == _longest(item)


def _longest(item: Item) -> str:
    return max(item.fields.values(), key=len, default="")


def _label(item: Item) -> str:
    return item.choices[item.gold].get("label", "") if item.gold is not None else ""
