"""`evaluate.py perplexity`: compared with an untrained network and a bigram."""

from __future__ import annotations

import argparse
import logging

from pangu_alpha.cli.options import (
    Differs,
    add_checkpoint_option,
    add_options,
    add_source_options,
    add_vocabulary_option,
    path_text,
    positive,
    source_options,
)
from pangu_alpha.config.run import RunConfig
from pangu_alpha.files.shown import log_to_stderr, shown

_EPILOG = """\
perplexity is that of a token; bits/character (-log2 p of all tokens over all characters) can be compared
between vocabularies

exit code: 0 the trained network wins against both; 1 it does not; 2 wrong input
"""


def run(options: argparse.Namespace) -> int:
    """Compares a trained network with baselines on the same held-out tokens.

    Returns:
        Exit code: 0, or 1 if the trained network does not beat both baselines.
    """
    log_to_stderr()
    logging.info("%s: starting MindSpore and loading it", shown(options.checkpoint))

    from pangu_alpha.parallel.context import use_device

    use_device(options.device)

    from pangu_alpha.evaluation.perplexity import compare_with_baselines, format_scores

    scores = compare_with_baselines(
        options.checkpoint,
        options.records,
        options.train_records,
        options.tokenizer,
        options.batch_size,
        source_options(options),
    )
    print(format_scores(scores))
    trained, *baselines = scores
    won = all(trained.nats < baseline.nats for baseline in baselines)
    print("the trained network wins against both" if won else "the trained network does NOT win against both")
    return 0 if won else 1


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command's options."""
    parser = commands.add_parser(
        "perplexity",
        help="compare the perplexity of held-out records with baselines",
        description="Perplexity of a trained PanGu-alpha, of the untrained one and of a Kneser-Ney bigram.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add_checkpoint_option(parser)
    add("--records", required=True, type=path_text, metavar="DIR", help="held-out records")
    add("--train-records", required=True, type=path_text, metavar="DIR", help="records on "
        "which the bigram is counted")  # fmt: skip
    add_vocabulary_option(parser)
    add(
        "--batch-size",
        type=positive,
        default=16,
        metavar="N",
        help="sequences computed together (default: %(default)s)",
    )
    add_options(parser, RunConfig, device=Differs(default="auto"))
    add_source_options(parser)


if __name__ == "__main__":
    from pangu_alpha.cli import no_program

    no_program("pangu_alpha.cli.evaluate perplexity")
