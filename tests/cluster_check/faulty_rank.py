"""A rank of a real check with a planted fault, which the environment variable PLANTED names."""

import dataclasses
import os
import signal
import sys
import time

sys.path.pop(0)  # these tests' folder

from pangu_alpha.cli import run_main
from pangu_alpha.cli.check_cluster import rank
from pangu_alpha.cluster_check.measure import links, overlap


def _slow_link():
    """Each call of the second rank is delayed."""
    real = links.cell_of

    def slow(name, group, members, rank, elements):
        cell = real(name, group, members, rank, elements)

        def delayed(sent):
            time.sleep(0.5 * (rank == 1))
            return cell(sent)

        return delayed

    links.cell_of = slow


def _killed_rank():
    real = links.cell_of

    def killed(name, group, members, rank, elements):
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(name, group, members, rank, elements)

    links.cell_of = killed


def _disturbed():
    """Products and sums hold each other up."""
    real = overlap.Work

    def disturbed(products, summed, dtype):
        cell = real(products, summed, dtype)

        def delayed(*inputs):
            time.sleep(1.0 * (products > 0 and summed))
            return cell(*inputs)

        return delayed

    overlap.Work = disturbed


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


_FAULTS = {
    "": lambda: None,
    "slow link": _slow_link,
    "killed rank": _killed_rank,
    "disturbed": _disturbed,
    "swapped slice": _swapped_slice,
    "secret overflow": _secret_overflow,
    "swapped tensors": _swapped_tensors,
}
_FAULTS[os.environ.get("PLANTED", "")]()

if __name__ == "__main__":
    run_main(rank.main)
