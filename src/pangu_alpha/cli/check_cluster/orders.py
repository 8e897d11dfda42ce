"""How the first node leads the others: one file in the folder of the results says what all start next.

The other nodes register there first, each with a word of its own. An order repeats these words, so that a
node never follows orders that were left by an earlier run.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pangu_alpha.cluster_check.check import Measurement
from pangu_alpha.files.reading import ReadError, read_json
from pangu_alpha.files.shown import shown
from pangu_alpha.files.writing import write_json

_POLL = 0.2  # seconds
END = "end"  # instead of a check's name: nothing follows


@dataclass(frozen=True)
class Order:
    """What all nodes start next.

    Args:
        number: Counts the orders of a run, from 1.
        check: Name of the check, or END.
        folder: Folder of the measurement's records.
        port: Port of msrun's scheduler; every order has the next one, so that no worker meets an old one.
        words: By node, the word with which it registered.
    """

    number: int
    check: str
    measurement: str = ""
    folder: str = ""
    port: int = 0
    words: Mapping[str, str] = field(default_factory=dict)


def _order_file(out: Path) -> Path:
    return out / "nodes" / "order.json"


def _registration(out: Path, node: int) -> Path:
    return out / "nodes" / f"node_{node}.json"


class Leader:
    """The first node's side.

    Args:
        out: Folder of the results.
        nodes: Number of nodes.
        port: First port of msrun's scheduler.
    """

    def __init__(self, out: Path, nodes: int, port: int) -> None:
        self._out, self._nodes, self._port = out, nodes, port
        self._number = 0
        self._words: dict[str, str] = {}

    def gather(self, seconds: float, given_up: Callable[[], bool]) -> None:
        """Waits until all other nodes have registered.

        Raises:
            ValueError: One has not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        (self._out / "nodes").mkdir(exist_ok=True)
        while not given_up():
            missing = [node for node in range(1, self._nodes) if not self._joined(node)]
            if not missing:
                return
            if time.monotonic() > deadline:
                raise ValueError(
                    f"--nnodes: node {missing[0]} has not come to {shown(self._out)} within {seconds:.0f} s; "
                    "start the same command on it with its --node-rank, with --out on storage that all nodes "
                    "share"
                )
            time.sleep(_POLL)

    def _joined(self, node: int) -> bool:
        if str(node) in self._words:
            return True
        path = _registration(self._out, node)
        try:
            word = read_json(path)["word"]
        except (OSError, ReadError):
            return False
        self._words[str(node)] = word
        path.unlink()
        return True

    def order(self, check: str, measurement: Measurement | None = None, folder: str = "") -> Order:
        """Makes the next order, and publishes it if the other nodes have a part in it."""
        self._number += 1
        name = measurement.name if measurement is not None else ""
        order = Order(self._number, check, name, folder, self._port + self._number - 1, self._words)
        if self._nodes > 1 and (measurement is None or measurement.ranks != "one"):
            write_json(_order_file(self._out), asdict(order))
        return order

    def end(self) -> None:
        """Lets the other nodes end."""
        self.order(END)


class Follower:
    """The side of any other node.

    Args:
        node: Index of this node.
    """

    def __init__(self, out: Path, node: int) -> None:
        self._out, self._node = out, node
        self._word = uuid.uuid4().hex
        self._done = 0
        (out / "nodes").mkdir(parents=True, exist_ok=True)
        write_json(_registration(out, node), {"word": self._word})

    def next(self, seconds: float, given_up: Callable[[], bool]) -> Order | None:
        """Returns the next order, or None if there will be none.

        Raises:
            ValueError: Within `seconds` there was no new order.
        """
        deadline = time.monotonic() + seconds
        while not given_up():
            order = self._read()
            if order is not None and order.number > self._done:
                self._done = order.number
                return None if order.check == END else order
            if time.monotonic() > deadline:
                _registration(self._out, self._node).unlink(missing_ok=True)
                raise ValueError(
                    f"--node-rank: node 0 has given no order in {shown(self._out)} for {seconds:.0f} s; it "
                    "has ended, or its --out is not on the same storage"
                )
            time.sleep(_POLL)
        _registration(self._out, self._node).unlink(missing_ok=True)
        return None

    def _read(self) -> Order | None:
        try:
            order = Order(**read_json(_order_file(self._out)))
        except (OSError, ReadError):
            return None
        return order if order.words.get(str(self._node)) == self._word else None
