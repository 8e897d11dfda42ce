"""Made-up results of two models."""

from __future__ import annotations

from datetime import datetime

from pangu_alpha.evaluation.metrics import metric
from pangu_alpha.evaluation.results.files import Run, write_results
from pangu_alpha.evaluation.results.published import published
from pangu_alpha.evaluation.results.result import Sample, TaskResult, item_sums, measured
from pangu_alpha.evaluation.statistics import chance, majority_share

GOLD = [0, 1, 2, 0, 1, 2, 0, 0]


class Made:
    """Makes results and writes them."""

    def choice(self, predictions, task="ocnli", shots=0, groups=None, gold=GOLD, **changes):
        figures = metric("accuracy").figures(predictions=predictions, references=gold)
        values = {
            "task": task,
            "title": task.upper(),
            "split": "dev.json",
            "template": "paper",
            "scoring": "exact",
            "ways": None,
            "shots": shots,
            "seed": 0,
            "n": len(gold),
            "measured": measured(figures, groups),
            "chance": chance([3] * len(gold)),
            "majority": majority_share(gold),
            "published": published(task, shots),
            "counts": {"ties": 1, "cut_left": 0},
        }
        result = TaskResult(**values | changes)
        samples = [
            Sample(
                number=number, id=f"item {number}", doc={"text": f"第{number}句"}, target=gold[number],
                requests=[("前", "对"), ("前", "错")], answers=[(-1.5, True), (-2.5, False)],
                prediction=predictions[number], sums=sums, group=groups[number] if groups else "",
                shots=["7", "3"][:shots],
            )
            for number, sums in enumerate(item_sums(figures))
        ]  # fmt: skip
        return result, samples

    def answer(self, predictions, references, name="dureader", task="dureader", **changes):
        figures = metric(name).figures(predictions=predictions, references=references)
        values = {
            "task": task,
            "title": task,
            "split": "dev.json",
            "template": "paper",
            "scoring": "greedy",
            "ways": None,
            "shots": 0,
            "seed": 0,
            "n": len(predictions),
            "measured": measured(figures),
            "published": published(task, 0),
        }
        samples = [
            Sample(number, str(number), {"q": "问"}, "答", [("问", {"until": ["\n"]})], [text], text, sums)
            for number, (text, sums) in enumerate(zip(predictions, item_sums(figures), strict=True))
        ]
        return TaskResult(**values | changes), samples

    def write(self, folder, *pairs, day=1):
        run = Run("small", "checkpoint=run", {"batch_size": 8}, datetime(2026, 1, day, 3, 4, 5, 6), 12.5)
        return write_results(
            folder, run, [each for each, _ in pairs], {each.name: rows for each, rows in pairs}
        )
