"""One process of a replayed training run.

python -m pangu_alpha.proof.replay.training.worker rank FOLDER    a rank, its step the rewritten graph
python -m pangu_alpha.proof.replay.training.worker one FOLDER     the run on one process, its update by NumPy
python -m pangu_alpha.proof.replay.training.worker scheduler ""   lets ranks find each other

FOLDER holds request.json. It gets what `engine.recorded` writes and, when the process has ended, exit_code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pangu_alpha.config.run import build_train_config
from pangu_alpha.files.shown import log_to_stderr
from pangu_alpha.files.writing import write_text
from pangu_alpha.proof.replay.training.files import EXIT_CODE, REQUEST

if TYPE_CHECKING:
    from pangu_alpha.parallel.world import World
    from pangu_alpha.training.engine import Engine


def run_rank(folder: Path) -> int:
    """Trains as one rank of a plan."""
    from mindspore.communication import get_group_size, get_rank, init

    from pangu_alpha.cluster.world_check import check_world
    from pangu_alpha.parallel.context import use_device
    from pangu_alpha.parallel.world import World

    request = _begin(folder)
    use_device("CPU")
    init()
    from pangu_alpha.proof.replay.training.engine import ReplayedEngine

    world = World(get_rank(), get_group_size())
    check_world(world, build_train_config(request["config"]), None)
    make = partial(ReplayedEngine, graphs=Path(request["graphs"]))
    # "Ascend" makes the trainer behave as on the devices that the graphs were compiled for.
    return _train(folder, request, make, "Ascend", world)


def run_one(folder: Path) -> int:
    """Trains as one process that reads all rows."""
    from pangu_alpha.parallel.context import use_device
    from pangu_alpha.parallel.world import World

    request = _begin(folder)
    use_device("CPU")
    from pangu_alpha.proof.replay.training.engine import ReferenceEngine

    return _train(folder, request, ReferenceEngine, "CPU", World())


def _begin(folder: Path) -> dict:
    log_to_stderr()
    request = json.loads((folder / REQUEST).read_text("utf-8"))
    if request["patch"]:
        module, _, function = request["patch"].partition(":")
        getattr(import_module(module), function)()
    return request


def _train(
    folder: Path, request: dict[str, Any], make: Callable[..., Engine], device: str, world: World
) -> int:
    from pangu_alpha.proof.replay.training.engine import recorded
    from pangu_alpha.training.guard import TrainingHaltedError
    from pangu_alpha.training.loop import train

    config = build_train_config(request["config"])
    try:
        code = train(config, device, world, engine=recorded(make, folder, request["waits"]))
    except TrainingHaltedError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 3
    world.barrier()
    write_text(folder / EXIT_CODE, str(code))
    return code


def run_scheduler(_: Path) -> int:
    """Lets the ranks find each other; returns when all of them have left."""
    from mindspore.communication import init

    init()
    return 0


if __name__ == "__main__":
    _RUNS = {"rank": run_rank, "one": run_one, "scheduler": run_scheduler}
    sys.exit(_RUNS[sys.argv[1]](Path(sys.argv[2])))
