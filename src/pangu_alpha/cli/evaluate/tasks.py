"""`evaluate.py tasks`: evaluates a model on tasks, and writes results, samples, a table and a picture."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pangu_alpha.cli.options import (
    Differs,
    add_checkpoint_option,
    add_options,
    add_output_folder,
    add_source_options,
    add_vocabulary_option,
    example_counts,
    naturals,
    part,
    path_text,
    positive,
    source_options,
    user_path,
    words,
)
from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.config.run import RunConfig
from pangu_alpha.evaluation.running.execute import (
    Share,
    hold_run,
    put_together,
    read_run,
    run_plans,
    started_of,
)
from pangu_alpha.evaluation.running.finish import write_all_results
from pangu_alpha.evaluation.running.plan import Plan, check_lengths, make_plans
from pangu_alpha.evaluation.tasks.catalog import choose_tasks, load_tasks
from pangu_alpha.evaluation.tasks.loading import load_sets
from pangu_alpha.evaluation.tasks.task import Scoring
from pangu_alpha.files.shown import log_to_stderr, shown

if TYPE_CHECKING:
    from pangu_alpha.evaluation.scoring import Scorer

_EPILOG = """\
the output folder gets results_*.json and samples_*.jsonl in the form of lm-evaluation-harness, results.md and
results.png; the same command again continues an interrupted evaluation

exit code: 0 done; 2 wrong input: all problems of all files are listed before the network is loaded
"""


def run(options: argparse.Namespace) -> int:
    """Evaluates the tasks; raises ValueError for what the user can fix."""
    if options.out is None:
        raise ValueError("--output: name the folder of the results")
    log_to_stderr()
    plans = plans_of(options)
    share = Share(*(options.share or (0, 1)))
    network = _open(options, plans)
    hold_run(options.out, _about(network, options.batch_size), plans)
    run_plans(network, plans, options.out, share)
    if share.size == 1:
        _write(options.out, plans)
    return 0


def plans_of(options: argparse.Namespace) -> list[Plan]:
    """Reads the files of the tasks, and returns what is to be evaluated.

    Raises:
        ValueError: Lists everything that is wrong with options and files.
    """
    tasks = choose_tasks(options.tasks, load_tasks(options.task_file), options.data)
    shown_examples = any(count != 0 for count in options.shots)
    sets = load_sets(tasks, options.data, options.seed if shown_examples else (), options.limit)
    return make_plans(
        sets,
        options.shots,
        options.seed,
        options.template,
        options.scoring,
        options.shots_per_item,
        options.greedy,
    )


def finish(options: argparse.Namespace, size: int) -> None:
    """Puts together what several processes computed, and writes the results.

    Args:
        size: Number of processes.
    """
    plans = plans_of(options)
    put_together(plans, options.out, size)
    _write(options.out, plans)


def _write(out: Path, plans: Sequence[Plan]) -> None:
    print(write_all_results(out, plans, read_run(out)["network"], started_of(out, plans)))


def _open(options: argparse.Namespace, plans: Sequence[Plan]) -> Scorer:
    """Loads the network, after all prompts were found to fit into its context."""
    logging.info("%s: starting MindSpore and reading what it is", shown(options.checkpoint))
    from pangu_alpha.parallel.context import use_device

    use_device(options.device)
    from pangu_alpha.evaluation.scoring import Scorer
    from pangu_alpha.inference.load import describe_for_inference

    source = source_options(options)
    for note in check_lengths(
        plans, describe_for_inference(options.checkpoint, options.tokenizer, None, source)
    ):
        logging.warning("%s", note)
    return Scorer(options.checkpoint, options.batch_size, options.tokenizer, source)


def _about(network: Scorer, batch_size: int) -> dict:
    return {
        "checkpoint": str(network.checkpoint),
        "step": network.step,
        "fingerprint": network.fingerprint,
        "vocabulary": network.tokenizer.digest,
        "context": network.context,
        "batch_size": batch_size,
    }


def add_task_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose tasks and their files."""
    add = parser.add_argument
    add("--data", required=True, type=user_path, metavar="DIR", help="folder with the published files of the "
        "tasks, in folders as they are published")  # fmt: skip
    add("--tasks", required=True, type=words, metavar="NAME,...", help="tasks with commas between them, or "
        "all: those whose files are in the folder")  # fmt: skip
    add("--task-file", action="append", default=[], type=path_text, metavar="YAML", help="further tasks, in "
        "the form of the shipped ones; may be repeated")  # fmt: skip
    add("--limit", type=positive, metavar="N", help="only N items of each task, drawn by their "
        "ids")  # fmt: skip


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command's options."""
    parser = commands.add_parser(
        "tasks",
        help="evaluate a model on tasks",
        description="Evaluates a trained PanGu-alpha on Chinese tasks, zero- and few-shot.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add_checkpoint_option(parser)
    add_vocabulary_option(parser)
    add_task_options(parser)
    add("--shots", type=example_counts, default=(0,), metavar="N,...", help="numbers of examples; K is "
        "the paper's few-shot number (default: 0)")  # fmt: skip
    add("--shots-per-item", action="store_true", help="draw examples for each item; by default all items of "
        "a seed have the same")  # fmt: skip
    add("--template", metavar="NAME", help="paper, released, opencompass, ... (default: the task's first, "
        "which is the paper's if it printed one)")  # fmt: skip
    add("--scoring", choices=get_args(Scoring), help="which tokens count (default: the "
        "template's, which is exact for the paper's)")  # fmt: skip
    add("--seed", type=naturals, default=(0,), metavar="N,...", help="seeds of examples, of drawn candidates "
        "and of ties (default: 0)")  # fmt: skip
    add_options(parser, SamplingConfig, greedy=Differs(default=False))
    add("--batch-size", type=positive, default=8, metavar="N", help="texts computed together "
        "(default: %(default)s)")  # fmt: skip
    add_output_folder(parser, "folder of the results")
    add("--share", type=part, metavar="R/N", help="compute only share R of N; the launcher sets it")
    add_options(parser, RunConfig, device=Differs(default="auto"))
    add_source_options(parser)


if __name__ == "__main__":
    from pangu_alpha.cli import no_program

    no_program("pangu_alpha.cli.evaluate tasks")
