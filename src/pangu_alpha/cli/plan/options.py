"""The options of plan.py."""

from __future__ import annotations

import argparse

from pangu_alpha.cli.options import (
    Differs,
    add_options,
    add_output_folder,
    add_plan_options,
    add_rack_option,
    byte_size,
    natural,
    naturals,
    path_text,
    positive,
    positive_number,
    user_path,
)
from pangu_alpha.cli.parser import Parser
from pangu_alpha.cli.plan import calibrate, train_replay
from pangu_alpha.cli.plan import search as search_command
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.run import RunConfig
from pangu_alpha.config.zoo import MODEL_NAMES

_EXAMPLES = """\
examples:
  plan.py search --model 13b --cluster 910a-1024 --global-batch 1024 --output planned
  plan.py search --model 200b --cluster table.json --levels 910a --global-batch 512 --output planned --verify
  plan.py operators --model 13b --devices 8 --batch-size 4
  plan.py calibrate --from run/metrics.jsonl --cluster 910b-64 --output my_cluster.yaml
  plan.py dry-run --model 2_6b --devices 512 --dp 64 --tp 8 --optimizer-parallel level1
  plan.py dry-run --model 200b --devices 2048 --dp 16 --tp 8 --pp 16 --micro-batches 32 \\
      --optimizer-parallel level1 --recompute full --servers-per-rack 16 --all-stages --output report
  plan.py replay --model tiny --dp 2 --tp 2 --pp 2 --micro-batches 4
  plan.py replay --suite quick
  plan.py replay --suite continued
  plan.py train-replay --dp 2 --tp 2 --pp 2 --micro-batches 2 --steps 20 --kill-rank 3 --then tp=4 --then pp=1
  plan.py strategies --model 2_6b --devices 8 --tp 8 --batch-size 8 --num-layers 4

exit code: 0 good; 1 there is no plan, a replay failed, or a dry run found what formulas or the sharding table
do not say, or took too much of the host's memory; 2 wrong options, or a plan that MindSpore refuses
"""


def plan_parser() -> argparse.ArgumentParser:
    """Makes the parser of plan.py's command line."""
    parser = Parser(
        prog="plan.py",
        description="What a parallel plan does, shown on a CPU machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _search_parsers(commands)
    _dry_run_parser(commands)
    _replay_parser(commands)
    one = commands.add_parser("train-replay", help="run a plan's training on CPU, interrupt it, compare it")
    train_replay.add_replay_options(one)
    _chip_option(one)
    _plan_options(one)
    _output_options(one)
    one = commands.add_parser("strategies", help="the sharding table beside MindSpore's own searches")
    _model_options(one)
    _plan_options(one)
    _output_options(one)
    return parser


def _dry_run_parser(commands: argparse._SubParsersAction) -> None:
    one = commands.add_parser("dry-run", help="compile ranks of a plan: what they hold and send")
    _model_options(one)
    _plan_options(one)
    add_options(
        one, RunConfig, attention_dropout=Differs(shown="run.attention_dropout of --plan, or positional")
    )
    which = one.add_mutually_exclusive_group()
    which.add_argument("--rank", type=natural, default=0, help="rank to compile (default: 0)")
    which.add_argument("--ranks", type=naturals, metavar="R,R,...", help="several ranks to compile; "
        "their dropout masks are compared")  # fmt: skip
    which.add_argument("--all-stages", action="store_true", help="compile the first rank of every stage")
    one.add_argument("--rank-table", type=path_text, metavar="FILE", help="where ranks stand (default: "
        "servers of 8 devices in the order of the ranks)")  # fmt: skip
    add_rack_option(one)
    one.add_argument("--initialize", action="store_true", help="also make the initial values, so that the "
        "peak memory of the host includes them (minutes for a stage of 10^10 parameters)")  # fmt: skip
    one.add_argument("--picture", type=path_text, metavar="PNG", help="draw what each stage sends")
    _chip_option(one)
    _output_options(one)


def _replay_parser(commands: argparse._SubParsersAction) -> None:
    one = commands.add_parser("replay", help="run a plan's graphs on CPU and compare with one device")
    one.add_argument(
        "--suite",
        nargs="?",
        const="quick",
        choices=("quick", "full", "continued"),
        help="replay the shipped plans instead of one; continued: plans that change during the training",
    )
    one.add_argument("--steps", type=positive, default=3, help="optimizer steps, of continued ones under "
        "each plan (default: 3)")  # fmt: skip
    one.add_argument("--model", type=path_text, metavar="NAME|YAML", help="its shape, in float32 without "
        "dropout (default: a network of hidden size 32)")  # fmt: skip
    add_options(
        one,
        ModelConfig,
        num_layers=Differs(older="--layers", shown="the model's, or 2"),
        dropout=Differs(shown="0, none"),
    )
    one.add_argument("model_fields", nargs="*", metavar="key=value", help="keys of the network, such as "
        "vocab_size=63 norm_order=query_then_norm")  # fmt: skip
    _chip_option(one)
    _plan_options(one)
    _output_options(one)


def _search_parsers(commands: argparse._SubParsersAction) -> None:
    """Adds the commands that neither compute nor compile a network."""
    one = commands.add_parser("search", help="the fastest plans for a model on a cluster")
    _network_options(one)
    search_command.add_options(one)
    _timeout_option(one, "seconds that a compilation of --verify may take")
    _output_options(one)
    one = commands.add_parser("operators", help="the best way to split each operator of a block")
    _network_options(one)
    one.add_argument("--devices", type=positive, required=True, metavar="N", help="that share the block")
    one.add_argument("--batch-size", type=positive, default=1, metavar="B", help="sequences of a micro-batch "
        "on all of them (default: 1)")  # fmt: skip
    one.add_argument("--micro-batches", type=positive, default=1, metavar="M", help="of a step (default: 1)")
    one.add_argument("--limit", type=byte_size, metavar="SIZE", help="of the block's matrices and their "
        "moments on a device, such as 120MB")  # fmt: skip
    one.add_argument("--output", "--out", dest="table_file", type=user_path, metavar="YAML", help="file for "
        "the found way as a table of operators, which parallel.table and --table take")  # fmt: skip
    one.add_argument(
        "--verify", action="store_true", help="compile the found way and compare it call by call"
    )
    one.add_argument(
        "--picture", type=path_text, metavar="PNG", help="draw bytes by tokens for 2, 4 and 8 devices"
    )
    _timeout_option(one, "seconds that a compilation of --verify may take")
    one = commands.add_parser("calibrate", help="a cluster's constants from your own logged steps")
    calibrate.add_options(one)


def _network_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, type=path_text, metavar="NAME|YAML", help="the network: "
        f"{', '.join(MODEL_NAMES)}, or a YAML with a section model")  # fmt: skip
    add_options(parser, ModelConfig, num_layers=Differs(older="--layers", shown="the model's"))


def _model_options(parser: argparse.ArgumentParser) -> None:
    _network_options(parser)
    add_options(parser, RunConfig, batch_size=Differs(shown="run.batch_size of --plan, or 1"))
    _timeout_option(parser, "seconds that a compilation may take")


def _timeout_option(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--timeout", type=positive_number, default=1800.0, metavar="S", help=f"{text} (default: 1800)"
    )


def _chip_option(parser: argparse.ArgumentParser) -> None:
    add_options(parser, RunConfig, chip=Differs(shown="run.chip of --plan, or 910B"))


def _plan_options(parser: argparse.ArgumentParser) -> None:
    add_plan_options(parser, "plan")
    parser.add_argument(
        "--devices", type=positive, metavar="N", help="number of devices; it must be dp * tp * pp"
    )


def _output_options(parser: argparse.ArgumentParser) -> None:
    add_output_folder(parser, "folder that keeps graphs, logs and report.json; without it nothing is kept")
    parser.add_argument("--json", action="store_true", help="print report.json instead of tables")
