"""Which candidates of an item are compared, and which of them is chosen by the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pangu_alpha.evaluation.tasks.item import Item, rank
from pangu_alpha.evaluation.tasks.task import EvaluationTask


def choose_candidates(item: Item, task: EvaluationTask, seed: int) -> Item:
    """Returns an item with `task.ways` candidates: the right one and others that the seed draws.

    The seed also decides the order of drawn candidates, so that the right one has no fixed place.
    """
    if task.ways is None or item.gold is None or len(item.choices) <= task.ways:
        return item

    def key(number: int) -> int:
        return rank(seed, task.name, item.id, "candidate", *item.choices[number].values())

    others = sorted((n for n in range(len(item.choices)) if n != item.gold), key=key)[: task.ways - 1]
    chosen = sorted((item.gold, *others), key=lambda n: rank(key(n), "place"))
    return replace(item, choices=tuple(item.choices[n] for n in chosen), gold=chosen.index(item.gold))


def pick(scores: Sequence[float], item: Item, task: str, seed: int) -> tuple[int, bool]:
    """Returns the index of the smallest score, and whether several are smallest; a hash decides between them.

    The first of them would be right too often in sets whose gold has a fixed place. Candidates of one text,
    which one question of C3 has, are no tie: the first of them is taken, as the gold is.
    """
    best = min(scores)
    tied = [n for n, score in enumerate(scores) if score == best]
    values = {n: tuple(item.choices[n].values()) for n in tied}
    chosen = min(tied, key=lambda n: rank(seed, task, item.id, "tie", *values[n]))
    return chosen, len({*values.values()}) > 1
