"""Launches several `evaluate.py tasks` on one node; each has the whole model and a share of the items."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pangu_alpha.cli.evaluate import tasks
from pangu_alpha.cli.evaluate.command import parse
from pangu_alpha.cli.launch.attempts import check_devices, dry, environment_of, run_attempts
from pangu_alpha.files.shown import shown
from pangu_alpha.launcher.commands import Job, plain_nodes


def launch_evaluate(program: str, options: argparse.Namespace, words: Sequence[str]) -> int:
    """Lets workers evaluate shares of the items, and puts what they computed together.

    Args:
        program: Path of evaluate.py.
        options: Options of the launcher.
        words: Words for `evaluate.py tasks`.

    Returns:
        Exit code.

    Raises:
        ValueError: evaluate.py would refuse the words or the files, or a device is missing.
    """
    asked = parse(["tasks", *words])
    if asked.out is None:
        raise ValueError("--output: name the folder of the results")
    if asked.share is not None:
        raise ValueError("--share: the launcher gives every worker its own; leave it out")
    size = options.nproc or 1
    device = [] if options.device is None else ["--device", options.device]
    share = [] if size == 1 else ["--share", f"{{rank}}/{size}"]
    nodes = plain_nodes(1, size)
    job = Job((program, "tasks", *device, *words, *share), nodes, "alone", environment_of(options),
              bind_cores=options.bind_cores)  # fmt: skip
    if options.dry:
        print(dry(job, options.log_dir))
        return 0
    tasks.plans_of(asked)  # so that faulty files are listed once, and not by every worker
    if options.device == "Ascend":
        check_devices(nodes[0])
    code = run_attempts(job, nodes[0], options)
    if code == 0 and size > 1:  # a single worker has finished by itself
        tasks.finish(asked, size)
    elif code:
        print(f"{shown(asked.out)}: keeps what was computed; the same command continues", file=sys.stderr)
    return code


if __name__ == "__main__":
    from pangu_alpha.cli import no_program

    no_program("pangu_alpha launch evaluate")
