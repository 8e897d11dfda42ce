"""What all processes of a check must agree on, kept in the folder of the results as setup.json."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pangu_alpha.config.schema import build
from pangu_alpha.files.reading import ReadError, read_json
from pangu_alpha.files.shown import shown
from pangu_alpha.files.writing import write_json

FILE = "setup.json"


@dataclass(frozen=True)
class Setup:
    """The machines and the program that are checked.

    Args:
        device: Kind of device, "CPU" or "Ascend".
        nodes: For each node, the ranks that run on it.
        devices: For each node, the device of each of these ranks.
        rank_table: Path of the rank table; "" if there is none.
        cluster: Name of the shipped cluster family that the machines are of, such as "910b"; "" if unknown.
        servers_per_rack: 0 if unknown.
        oracle: Folder of the arrays that the official code computed; "" if there is none.
        released: Checkpoint of a network that the user has; "" if there is none.
        text: File with a text for it; "" if there is none.
        source: Digest of this package's source.
    """

    device: str
    nodes: tuple[tuple[int, ...], ...]
    devices: tuple[tuple[int, ...], ...]
    rank_table: str = ""
    cluster: str = ""
    servers_per_rack: int = 0
    oracle: str = ""
    released: str = ""
    text: str = ""
    source: int = 0

    @property
    def size(self) -> int:
        """Number of ranks."""
        return sum(map(len, self.nodes))

    def node_of(self, rank: int) -> int:
        """Index of the node that a rank runs on."""
        return next(place for place, ranks in enumerate(self.nodes) if rank in ranks)

    def save(self, folder: Path) -> None:
        """Writes the set-up to a folder of results, or compares it with the one that is there.

        Raises:
            ValueError: The folder holds results of another set-up.
        """
        path = folder / FILE
        if path.exists():
            if differing := list(self._differing(Setup.load(folder))):
                raise ValueError(
                    f"--out: {shown(folder)}: holds results of another set-up (other: "
                    f"{', '.join(differing)}); name a new folder"
                )
            return
        write_json(path, asdict(self))

    def _differing(self, other: Setup) -> Iterator[str]:
        for name, value in asdict(self).items():
            if value != asdict(other)[name]:
                yield name

    @classmethod
    def load(cls, folder: Path) -> Setup:
        """Reads the set-up of a folder of results.

        Raises:
            ReadError: There is none, or it is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            raise ReadError(f"{shown(folder)}: no {FILE}: this is no folder of check-cluster --out")
        return build(cls, read_json(path), str(path))


@dataclass(frozen=True)
class Level:
    """Groups of ranks that are joined by one kind of links.

    Args:
        name: "pair", "group", "server", "rack" or "cluster".
        size: Ranks of each group; groups are consecutive ranks.
    """

    name: str
    size: int

    def groups(self, ranks: int) -> list[tuple[int, ...]]:
        """All groups of the level, which together hold every rank once."""
        return [tuple(range(first, first + self.size)) for first in range(0, ranks, self.size)]


def levels(setup: Setup) -> list[Level]:
    """The levels of links that the set-up has, from the inside out, each with groups of equal size.

    Two levels of one size are the outer one, except that all ranks of one server are its "server".
    """
    local = len(setup.nodes[0]) if len({len(ranks) for ranks in setup.nodes}) == 1 else 0
    fours = 4 if setup.cluster == "910a" else 0
    named = {"pair": 2, "group": fours, "server": local, "rack": local * setup.servers_per_rack,
             "cluster": setup.size}  # fmt: skip
    found: dict[int, str] = {}
    for name, size in named.items():
        if 1 < size <= setup.size and setup.size % size == 0 and (name != "cluster" or size not in found):
            found[size] = name
    return [Level(found[size], size) for size in sorted(found)]
