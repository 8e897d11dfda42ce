"""A rank of a real check with a planted fault, which the environment variable PLANTED names."""

import dataclasses
import os
import signal
import sys
import time

sys.path.pop(0)  # these tests' folder

from pangu_alpha.cli import run_main
from pangu_alpha.cli.check_cluster import rank
from pangu_alpha.cluster_check.measure import links

_whole = links.collectives


def _rank():
    from mindspore.communication import get_rank

    return get_rank()


def _slow(device, group):
    """A link that delays each call of the second rank."""

    def delayed(collective, sent):
        time.sleep(0.5 * (_rank() == 1))
        return collective(sent)

    found = _whole(device, group)
    return {name: lambda sent, each=each: delayed(each, sent) for name, each in found.items()}


def _killed(device, group):
    if _rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return _whole(device, group)


def _swapped_slice():
    """Rank 1 holds the slices of rank 0; one plan is measured."""
    from pangu_alpha.cluster_check.measure.runs import partitioned

    real, plans = partitioned._set_values, partitioned.jobs
    partitioned.jobs = lambda *of: {os.environ["PLAN"]: plans(*of)[os.environ["PLAN"]]}
    partitioned._set_values = lambda engine, job, rank, one: real(engine, job, 0, one)


def _secret_overflow():
    """Ranks do not sum their gradients, so each knows its own overflows alone."""
    from pangu_alpha.parallel.reductions import DataParallel, OneDevice

    DataParallel.batch_sums = OneDevice.batch_sums


def _swapped_tensors():
    """The resharded checkpoint has two weights of one shape in each other's place."""
    from pangu_alpha.cluster_check.measure.runs import reshard as module

    real = module.reshard

    def swapped(source, *more, **options):
        model = dict(source.tensors["model"])
        one, other = (f"blocks.1.attention.{name}.weight" for name in ("query", "value"))
        model[one], model[other] = model[other], model[one]
        real(dataclasses.replace(source, tensors={**source.tensors, "model": model}), *more, **options)

    module.reshard = swapped


PLANTED = os.environ.get("PLANTED", "")
if PLANTED in ("slow link", "killed rank"):
    links.collectives = {"slow link": _slow, "killed rank": _killed}[PLANTED]
elif PLANTED:
    {"swapped slice": _swapped_slice, "secret overflow": _secret_overflow,
     "swapped tensors": _swapped_tensors}[PLANTED]()  # fmt: skip

if __name__ == "__main__":
    run_main(rank.main)
