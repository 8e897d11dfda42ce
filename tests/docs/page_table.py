"""How the commands of each page are run by the tests, or why they are not: one row for each of them.

A row is for all commands of its page that begin with its words; the row with the longest beginning counts.
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
EVALUATION_FILES = "needs the published evaluation files"
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


README = (given.readme,)
PORT = "--master-port FREE_PORT"  # a free one: jobs beside this one take the default
SMALL = "run.batch_size=1 run.peak_tflops=0.1"
_CHECKPOINTS = (long("python src/checkpoint.py"),)
_MERGE = long("python src/merge_checkpoint.py")
_PREDICT = long("python src/predict.py", "--max-new-tokens 4")

PAGES: dict[str, Page] = {
    "CONTRIBUTING.md": Page(
        (
            never("make check", "it would run this test"),
            never("make hooks", "it changes the reader's own checkout"),
            never("bash run_scripts/run_tests.sh", "it would run this test"),
        )
    ),
    "README.md": Page(
        given=(given.novel,),
        owned=("runs/quickstart",),  # the quickstart makes it
        rows=(
            never("bash run_scripts/quickstart.sh", "test_quickstart.py runs it"),
            never("bash run_scripts/run_tests.sh", "it would run this test"),
            never(
                "bash run_scripts/run_serve.sh",
                "it serves until it is stopped; test_real_server.py starts one",
            ),
            never("python -m pangu_alpha.cli.fetch", NETWORK),
            ci("mkdir"),
            ci("head"),
            ci("tail"),
            ci("python -m pangu_alpha.cli.vocab", "--size 300"),
            ci("python src/preprocess.py"),
            long("python src/train.py", "run.steps=2"),
            long("python src/predict.py", "--max-new-tokens 4"),
            long("python src/evaluate.py perplexity", code=1),  # two steps beat no bigram
            never("python src/plan.py search", "docs/planner.md runs it"),
            never("python src/plan.py dry-run", HOURS),
            never("python src/plan.py replay", "docs/replay.md runs a smaller one"),
            ci("bash run_scripts/run_distribute_train.sh --config many.yaml"),
            long("bash run_scripts/run_distribute_train.sh --config run.yaml", f"run.steps=2 {PORT}"),
            long("python src/merge_checkpoint.py"),
            long("python src/checkpoint.py"),
        ),
    ),
    "docs/calibrate.md": Page(given=(given.logs,), rows=(ci("python src/plan.py"),)),
    "docs/checkpoint_format.md": Page(_CHECKPOINTS, given_long=README),
    "docs/checkpoints.md": Page((*_CHECKPOINTS, _MERGE, _PREDICT), given_long=README),
    "docs/choosing.md": Page(
        (ci("python src/plan.py search"), long("python src/train.py", f"{SMALL} run.steps=2")),
        given_long=README,
    ),
    "docs/configuration.md": Page((long("python src/train.py", "run.steps=4"),), given_long=README),
    "docs/continuing.md": Page((long("python src/train.py", f"{SMALL} run.steps=2"),), given_long=README),
    "docs/cost_model.md": Page((ci("python src/plan.py search"),)),
    "docs/data.md": Page(
        (
            long("python src/preprocess.py"),
            ci("python -m pangu_alpha.cli.fetch --list"),
            never("python -m pangu_alpha.cli.fetch", NETWORK),
        ),
        given=(given.novel,),
        given_long=README,
    ),
    "docs/dry_run.md": Page((long("python src/plan.py dry-run"),)),
    "docs/evaluation.md": Page(
        (
            ci("python: from pangu_alpha.evaluation.metrics"),
            long("python: "),
            ci("python src/evaluate.py compare"),
            ci("python src/evaluate.py list"),
            never("python src/evaluate.py tasks", EVALUATION_FILES),
            never("bash run_scripts/run_distribute_evaluate.sh", EVALUATION_FILES),
            never("python src/evaluate.py contamination", EVALUATION_FILES),
            never("python src/train.py", EVALUATION_FILES),
        ),
        given=(given.results,),
        given_long=README,
        owned=("eval", "released/13b"),
    ),
    "docs/export_checkpoint.md": Page((*_CHECKPOINTS, _MERGE, _PREDICT), given_long=README),
    "docs/generation.md": Page(
        (
            ci("printf"),
            long("printf '却说曹操\\n玄德曰：\\n\\n次日，"),
            ci("cat"),
            _PREDICT,
            long("bash run_scripts/run_distribute_predict.sh", "--max-new-tokens 2"),
            long("python: "),
        ),
        given_long=README,
    ),
    "docs/killed_while_saving.md": Page(
        (
            long("python src/checkpoint.py"),
            long("python src/train.py", replaced=(("run.steps=8", f"{SMALL} run.steps=8"),)),
        ),
        given_long=README,
    ),
    "docs/launching.md": Page(
        (
            long("bash run_scripts/run_distribute_train.sh --device CPU", f"{SMALL} run.steps=2 {PORT}"),
            ci("bash run_scripts/run_distribute_train.sh --config npus_8.yaml"),
            ci("bash run_scripts/run_distribute_train.sh --config many.yaml", output="exact"),
        ),
        given=(given.shown_in("README.md", "many.yaml"),),
        given_long=README,
    ),
    "docs/library.md": Page((long("python: "),), given_long=README),
    "docs/merge_checkpoint.md": Page((_MERGE, *_CHECKPOINTS), given_long=README),
    "docs/mindformers.md": Page(
        # The tests' vocabulary is smaller than the network's: it has no text for most ids.
        (long("python: ", replaced=(("tokenizer.decode(row, skip_special_tokens=True)", "row"),)),),
        given_long=README,
        owned=("shape.yaml",),
    ),
    "docs/open_checkpoint.md": Page((*_CHECKPOINTS, _PREDICT), given_long=README, owned=("output",)),
    "docs/operator_split.md": Page(
        (
            ci("python src/plan.py operators"),
            long("python src/plan.py operators --model tiny --devices 4 --batch-size 4 --verify"),
            long("python src/plan.py dry-run"),
        )
    ),
    "docs/planner.md": Page(
        (
            long("python src/plan.py search", output="exact"),
            long(
                "python src/plan.py search --model 200b --cluster 910a-2048 --global-batch 512 --compare",
                output="exact",
            ),
            ci("python src/plan.py search --model 13b --cluster 910a-7", code=1),
            ci("python src/plan.py search --model 200b --cluster 910a-64", code=1),
            ci("python src/plan.py search --model 2_6b --cluster 910b-64", code=1, output="exact"),
        )
    ),
    "docs/plans.md": Page(
        (
            long("python src/plan.py dry-run --model tiny"),
            never("python src/plan.py replay", "docs/replay.md runs it"),
        )
    ),
    "docs/corpus.md": Page(
        (
            ci("python src/corpus.py demo data/demo --small"),
            never("python src/corpus.py demo data/demo_real", NETWORK),
            never("python src/corpus.py run", "needs a crawl; test_command.py runs such a one"),
            ci("python src/corpus.py explain"),
            ci("python src/corpus.py report data/demo"),
            never("python src/corpus.py report corpus", "needs a crawl"),
            never("python src/preprocess.py", "needs a crawl"),
            never("python src/corpus.py mix", "needs a crawl"),
            never("bash run_scripts/pack_corpus_environment.sh", "needs a cluster"),
            never("bash run_scripts/run_corpus_spark.sh", "needs a cluster"),
        ),
        owned=(
            "corpus",
            "corpus.yaml",
            "data/demo",
            "data/demo/corpus",
            "data/demo_real",
            "data/vocab.model",
        ),
    ),
    "docs/first_hour.md": Page((ci("python src/check_cluster.py"),)),
    "docs/kernels.md": Page(
        (never("python src/train.py", "needs AVX512-BF16; test_medium_precision.py trains with it"),),
        given_long=README,
    ),
    "docs/proven.md": Page(
        (
            never("python src/plan.py dry-run", "docs/plans.md runs it"),
            never("python src/plan.py replay", "docs/replay.md runs it"),
        )
    ),
    "docs/rank_tables.md": Page((ci("python src/rank_table.py"),), given=(given.addresses,)),
    "docs/replay.md": Page((long("python src/plan.py replay"),)),
    "docs/requirements.md": Page((ci("export"),)),
    "docs/results/cost_model_error.md": Page((ci("python benchmarks/cost_model_error.py"),)),
    "docs/resume_on_fewer_devices.md": Page(
        (
            long("python src/train.py --config run.yaml run.steps=40", replaced=(("=40", f"=4 {SMALL}"),)),
            long("python src/train.py", replaced=(("=44", f"=5 {SMALL}"),)),
            *_CHECKPOINTS,
            _MERGE,
            long("tail"),
        ),
        given=(given.shown_in("README.md", "many.yaml"),),
        given_long=README,
    ),
    "docs/results/evaluation.md": Page(
        (
            never("bash run_scripts/quickstart.sh", "test_quickstart.py runs it"),
            never("python src/evaluate.py tasks", EVALUATION_FILES),
        ),
        owned=("eval", "runs/quickstart"),
    ),
    "docs/serving.md": Page((), owned=("runs/quickstart", "runs/mine")),
    "docs/strategies.md": Page((long("python src/plan.py strategies"),)),
    "docs/train_replay.md": Page((long("python src/plan.py train-replay"),)),
    "docs/training.md": Page((long("tail"),), given_long=README),
    "model_zoo/README.md": Page(
        (
            ci("python -m pangu_alpha.cli.vocab", "--size 300"),
            long("python src/preprocess.py"),
        ),
        given=(given.text,),
    ),
    "docs/use_released_weights.md": Page(
        (
            ci("python src/plan.py search"),
            long("python src/preprocess.py"),
            long("python src/train.py"),
            *_CHECKPOINTS,
            _MERGE,
            _PREDICT,
        ),
        given_long=README,
        owned=("PanguAlpha_13B",),
    ),
}
