"""Command line of train.py: reads a YAML file and overrides, and trains."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pangu_alpha.cli import run_main
from pangu_alpha.cli.keys import keys_text
from pangu_alpha.cli.options import Differs, add_options, given_fields, path_text
from pangu_alpha.cli.parser import Parser
from pangu_alpha.config.run import RunConfig, TrainConfig, load_train_config
from pangu_alpha.files.shown import log_to_stderr

if TYPE_CHECKING:
    from pangu_alpha.parallel.world import World

_EPILOG = """\
examples:
  train.py --config run.yaml
  train.py --config run.yaml --resume auto run.steps=2000 optim.learning_rate=1e-4

keys: a key of the YAML is given as key=value, with dots between section and key (run.checkpoint.every=100);
its value is YAML (null, 1e-4, '[2, 2]'). --keys lists all keys, and so does docs/configuration.md

exit code: 0 done; 2 wrong input; 3 the run stopped itself: too many updates in a row were skipped, or ranks
that hold copies of a tensor no longer agree;
128 + n after signal n (Ctrl-C, SIGTERM, or SIGHUP unless it is ignored): saved where it can go on; a second
Ctrl-C or SIGTERM stops at once, without saving
"""


def main(arguments: Sequence[str]) -> int:
    """Trains as a YAML file and its overrides say.

    Returns:
        Exit code: 0; 128 + the signal's number when a signal stopped the run; 3 when it stopped itself.
    """
    options = _parser().parse_args(arguments)
    given = given_fields(options, RunConfig)  # not passed as YAML, because a path may contain ": " or " #"
    config = load_train_config(options.config, options.overrides, given)
    log_to_stderr()
    logging.info("starting MindSpore")

    # MindSpore takes seconds to import, so this comes after the config has been checked.
    from pangu_alpha.model.operators import operators_for
    from pangu_alpha.model.operators.dropout import check_masks
    from pangu_alpha.parallel.context import use_chip, use_device
    from pangu_alpha.parallel.world import join_world

    device = use_device(config.run.device)
    world = join_world(config.parallel, device)
    if world.rank:
        logging.getLogger().setLevel(logging.WARNING)  # rank 0 logs for all
    if device == "Ascend":
        use_chip(config.run.chip, config.model)
        if config.model.dropout:
            operators = operators_for(config.model, chip=config.run.chip)
            check_masks(config.model.dropout, operators.float_status)
    return _together(config, device, world, options.restarted)


def _parser() -> Parser:
    parser = Parser(
        prog="train.py",
        description="Trains PanGu-alpha.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", required=True, type=path_text, metavar="YAML", help="the run: sections model, data, run, "
        "optim and parallel")  # fmt: skip
    add_options(
        parser,
        RunConfig,
        resume=Differs(shown="run.resume of the YAML"),
        initial=Differs(older="--init-from", shown="run.initial of the YAML"),
    )
    add("--restarted", action="store_true", help="continue from the newest whole checkpoint of run.output if "
        "there is one, else as run.resume says; the launcher restarts a run with it")  # fmt: skip
    add("--keys", action=_Keys, help="list every key of the YAML with type, default and meaning, or those "
        "that begin with KEY, such as run.checkpoint, and exit")  # fmt: skip
    add("overrides", nargs="*", metavar="key=value", help="change a key of the YAML for this run, such as "
        "optim.learning_rate=1e-3; before or behind the options")  # fmt: skip
    return parser


class _Keys(argparse.Action):
    """Prints the keys and exits, as --help does."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs="?", default=argparse.SUPPRESS, metavar="KEY", help=help)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        print(keys_text(section=values or ""))
        parser.exit()


def _together(config: TrainConfig, device: str, world: World, restarted: bool) -> int:
    """Trains, and makes all ranks leave together.

    A worker that leaves early closes the connections of the others, or makes them crash (MindSpore 2.9). The
    barrier can go when a worker can leave by itself.
    """
    from pangu_alpha.cluster.world_check import RanksDifferError, check_world
    from pangu_alpha.evaluation.during_training import TaskHook, training_plans
    from pangu_alpha.parallel.context import device_number
    from pangu_alpha.training.guard import TrainingHaltedError
    from pangu_alpha.training.loop import train

    try:
        check_world(world, config, device_number(device))
        plans = training_plans(config)
        code = train(
            config, device, world, restarted, hooks=lambda run: [TaskHook(run, plans)] if plans else []
        )
    except TrainingHaltedError as error:  # raised on all ranks, because their norms are equal
        print(f"error: {error}", file=sys.stderr)
        code = 3
    except RanksDifferError:  # also raised on all ranks
        world.barrier()
        raise
    world.barrier()
    return code


if __name__ == "__main__":
    run_main(main)
