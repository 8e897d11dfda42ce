"""The first node leads the others through one file; what an earlier run has left is never followed."""

from __future__ import annotations

import threading

import pytest

from pangu_alpha.cli.check_cluster.orders import Follower, Leader
from pangu_alpha.cluster_check.check import Measurement

ALL = Measurement("joined", "all")


def never():
    return False


def led(out, port=8118):
    """A leader and the follower that it has found."""
    follower, leader = Follower(out, 1), Leader(out, 2, port)
    leader.gather(5, never)
    return leader, follower


def test_a_follower_gets_every_order_once_and_then_the_end(tmp_path):
    leader, follower = led(tmp_path)
    seen = []

    def follow():
        while (order := follower.next(5, never)) is not None:
            seen.append((order.check, order.measurement, order.port))

    thread = threading.Thread(target=follow)
    thread.start()
    for name in ("world", "links"):
        leader.order(name, ALL, "folder")
        while len(seen) < 1 + (name == "links"):
            pass
    leader.order("speed", Measurement("device"))  # of the first rank alone
    leader.end()
    thread.join(10)
    assert seen == [("world", "joined", 8118), ("links", "joined", 8119)]


def test_orders_of_an_earlier_run_are_not_followed(tmp_path):
    leader, _ = led(tmp_path)
    leader.order("world", ALL, "old")
    late = Follower(tmp_path, 1)
    with pytest.raises(ValueError, match="has given no order"):
        late.next(0.5, never)
    leader, follower = led(tmp_path, 9000)
    leader.order("links", ALL, "new")
    assert follower.next(5, never).folder == "new"


def test_a_node_that_does_not_come_is_named(tmp_path):
    Follower(tmp_path, 1)
    with pytest.raises(ValueError, match="node 2 has not come to .* shared?"):
        Leader(tmp_path, 3, 8118).gather(0.5, never)


def test_both_give_up_at_a_signal(tmp_path):
    Leader(tmp_path, 2, 8118).gather(60, lambda: True)
    assert Follower(tmp_path, 1).next(60, lambda: True) is None
    assert not (tmp_path / "nodes" / "node_1.json").exists()
