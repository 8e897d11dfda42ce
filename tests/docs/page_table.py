"""How the commands of each page are run by the tests, or why they are not: one row for each of them.

A row is for all commands of its page that begin with its first words; the row with the longest beginning counts.
Lines that show a form (`[--option VALUE]`, `...`) have no row: their options are looked up in the program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import page_givens as given
from page_folder import Folder

MORE_NODES = "needs several nodes"
NPUS = "needs NPUs"
NETWORK = "needs the network"
RELEASED = "needs the released weights"
TRAIN_REPLAY = "test_replay_training.py runs such a one"
HOURS = "takes minutes to hours at its real size, and has no smaller one"


@dataclass(frozen=True)
class Row:
    """way: `ci`, run by every test run; `long`, by the long one; `never`, for the reason given.

    Args:
        words: What makes the command small; stands behind its own words, and wins over them.
        replaced: Words of the page, each with what stands in its place.
        code: Exit code that is right for it.
        output: What is compared with the page: `exact`, all but times; `form`, all but numbers; `` nothing.
    """

    beginning: str
    way: str
    words: str = ""
    replaced: tuple[tuple[str, str], ...] = ()
    code: int = 0
    output: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Page:
    """Rows of a page, and what its reader has before: made for `ci` and `long`, or for `long` alone.

    Args:
        owned: Files and folders that only a reader has, such as the released weights; no test makes them.
        files: Files that the page describes but does not show as a block.
    """

    rows: tuple[Row, ...]
    given: tuple[Callable[[Folder], None], ...] = ()
    given_long: tuple[Callable[[Folder], None], ...] = ()
    owned: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)


def ci(beginning: str, words: str = "", **more) -> Row:
    """A command that every test run runs."""
    return Row(beginning, "ci", words, **more)


def long(beginning: str, words: str = "", **more) -> Row:
    """A command that the long test run runs."""
    return Row(beginning, "long", words, **more)


def never(beginning: str, reason: str) -> Row:
    """A command that no test runs."""
    return Row(beginning, "never", reason=reason)


MANY = """\
model: 200b
data: {train: {text: {records: data/train_1024}}, vocabulary: data/vocab.model}
run: {output: runs/many, steps: 100000, batch_size: 1}
parallel: {dp: 16, tp: 8, pp: 16, micro_batches: 32, optimizer_parallel: level1, recompute: full, \
sequence_parallel: true}
"""

PAGES: dict[str, Page] = {
    "README.md": Page(
        given=(given.text,),
        rows=(
            never("bash run_scripts/quickstart.sh", "test_quickstart.py runs it"),
            never("bash run_scripts/run_tests.sh", "it would run this test"),
            never("source .venv/bin/activate", "the tests run in an environment of their own"),
            ci("python -m pangu_alpha.cli.vocab", "--size 300"),
            ci("python src/preprocess.py"),
            ci("cat >run.yaml"),
            long("python src/train.py", "run.steps=2"),
            long("python src/predict.py", "--max-new-tokens 4"),
            long("python src/evaluate.py", code=1),  # two steps beat no bigram
            ci("python src/plan.py search"),
            never("python src/plan.py dry-run", HOURS),
            never("python src/plan.py replay", "test_replay.py replays such plans"),
            never("python src/plan.py train-replay", TRAIN_REPLAY),
            ci("python src/rank_table.py check"),
            ci("bash run_scripts/run_distribute_train.sh --config many.yaml"),
            long("bash run_scripts/run_distribute_train.sh --config run.yaml", "run.steps=2"),
            never("python src/checkpoint.py inspect PanguAlpha_13B/", RELEASED),
            never("python src/predict.py --checkpoint PanguAlpha_13B/", RELEASED),
            long("python src/merge_checkpoint.py"),
            long("python src/checkpoint.py"),
        ),
        owned=("PanguAlpha_13B",),
        files={"many.yaml": MANY},
    ),
}
