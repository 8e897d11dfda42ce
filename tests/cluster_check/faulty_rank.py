"""A rank of a real check with a planted fault, which the environment variable PLANTED names."""

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


links.collectives = {"slow link": _slow, "killed rank": _killed, "": _whole}[os.environ.get("PLANTED", "")]

if __name__ == "__main__":
    run_main(rank.main)
