"""`evaluate.py contamination`: the n-grams that evaluation items share with training records."""

from __future__ import annotations

import argparse

from pangu_alpha.cli.evaluate.tasks import add_task_options
from pangu_alpha.cli.options import add_vocabulary_option, positive, user_path
from pangu_alpha.evaluation.tasks.catalog import choose_tasks, load_tasks
from pangu_alpha.evaluation.tasks.item import Item
from pangu_alpha.evaluation.tasks.loading import load_sets
from pangu_alpha.evaluation.tasks.task import EvaluationTask
from pangu_alpha.files.shown import log_to_stderr
from pangu_alpha.text.tokenizer import PanguTokenizer


def run(options: argparse.Namespace) -> int:
    """Prints the overlap, and figures of the clean items if results are given."""
    from pangu_alpha.evaluation.contamination import (
        ItemText,
        clean_results,
        clean_table,
        find_overlap,
        overlap_table,
    )

    log_to_stderr()
    tasks = choose_tasks(options.tasks, load_tasks(options.task_file), options.data)
    sets = {
        each.task.name: [ItemText(*pair) for pair in texts_of(each.task, each.items)]
        for each in load_sets(tasks, options.data, limit=options.limit)
    }
    overlaps = find_overlap(sets, options.records, PanguTokenizer(options.tokenizer), options.ngram)
    print(overlap_table(overlaps))
    if options.results is not None:
        print()
        print(clean_table(clean_results(options.results, overlaps)))
    return 0


def texts_of(task: EvaluationTask, items: tuple[Item, ...]) -> list[tuple[str, dict[str, str]]]:
    """Returns (id, texts by part) of the items, as results name them: CMRC2019's items are passages."""
    if "cmrc2019" not in task.metrics:
        return [(item.id, _parts(item)) for item in items]
    passages: dict[str, str] = {}
    for item in items:
        passages[item.group] = passages.get(item.group, "") + _parts(item)["question"] + "\n"
    return [(name, {"question": text}) for name, text in passages.items()]


def _parts(item: Item) -> dict[str, str]:
    """A question with its answer apart from its passage; all of an item that is not of this kind."""
    fields = dict(item.fields)
    labelled = bool(item.choices) and "label" in item.choices[0]
    target = "" if labelled else item.target
    if "question" in fields:
        return {"question": fields["question"] + target, "passage": fields.get("passage", "")}
    if "before" in fields:
        middle = fields.get("pronoun", target)
        return {"question": fields["before"] + middle + fields.get("after", "")}
    return {"question": "".join(fields.values()) + target}


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command's options."""
    parser = commands.add_parser(
        "contamination",
        help="look for evaluation items in training records",
        description="Counts the n-grams that evaluation items share with training records.",
    )
    add = parser.add_argument
    add("--records", action="append", required=True, type=user_path, metavar="DIR", help="training records; "
        "may be repeated")  # fmt: skip
    add_vocabulary_option(parser, required=True)
    add_task_options(parser)
    add("--ngram", type=positive, metavar="N", help="tokens of an n-gram (default: from 8 to 13, by the "
        "lengths of a set's items)")  # fmt: skip
    add("--results", type=user_path, metavar="DIR", help="results of these tasks, to count again over the "
        "items that share nothing")  # fmt: skip


if __name__ == "__main__":
    from pangu_alpha.cli import no_program

    no_program("pangu_alpha.cli.evaluate contamination")
