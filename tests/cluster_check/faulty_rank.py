"""A rank of a real check with a planted fault, which the environment variable PLANTED names."""

import os
import signal
import sys
import time

sys.path.pop(0)  # these tests' folder

from pangu_alpha.cli import run_main
from pangu_alpha.cli.check_cluster import rank
from pangu_alpha.cluster_check.measure import links, overlap

_cell_of, _work = links.cell_of, overlap.Work


def _slow(name, group, members, rank, elements):
    """A link that delays each call of the second rank."""
    cell = _cell_of(name, group, members, rank, elements)

    def delayed(sent):
        time.sleep(0.5 * (rank == 1))
        return cell(sent)

    return delayed


def _killed(name, group, members, rank, elements):
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return _cell_of(name, group, members, rank, elements)


def _disturbed(products, summed, dtype):
    """Products and sums that hold each other up."""
    cell = _work(products, summed, dtype)

    def delayed(*inputs):
        time.sleep(1.0 * (products > 0 and summed))
        return cell(*inputs)

    return delayed


planted = os.environ.get("PLANTED", "")
links.cell_of = {"slow link": _slow, "killed rank": _killed}.get(planted, _cell_of)
overlap.Work = {"disturbed": _disturbed}.get(planted, _work)

if __name__ == "__main__":
    run_main(rank.main)
