"""Command line of evaluation: perplexity beside an untrained network's and a bigram's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pangu_alpha.cli.merge_checkpoint import add_source_options, source_options


def main(arguments: Sequence[str]) -> int:
    """Compares a trained network with baselines on the same held-out tokens.

    Args:
        arguments: Words of the command line.

    Returns:
        Exit code: 0, or 1 if the trained network does not win against both baselines.
    """
    parser = argparse.ArgumentParser(
        description="Perplexity of a trained PanGu-alpha, of the untrained one and of a Kneser-Ney bigram."
    )
    parser.add_argument(
        "--checkpoint", required=True, help="a run's output folder or a checkpoint of any form"
    )
    parser.add_argument("--records", required=True, help="held-out records")
    parser.add_argument("--train-records", required=True, help="records the bigram is counted on")
    parser.add_argument("--tokenizer", help="vocab.model; by default the one beside the checkpoint")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", default="auto", choices=("auto", "CPU", "Ascend"))
    add_source_options(parser)
    options = parser.parse_args(arguments)

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
