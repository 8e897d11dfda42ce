"""Draws the grid that a rank table realises: racks of servers, their devices coloured by pipeline stage."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pangu_alpha.cluster.tables.problem import ranges
from pangu_alpha.cluster.tables.rank_table import RankTable, Server
from pangu_alpha.files.shown import shown
from pangu_alpha.files.writing import replacing_file
from pangu_alpha.parallel.mesh import AXES, COORDINATE_OF, Mesh

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In units of a device's width.
_HEIGHT, _MARGIN, _RACK_GAP = 0.82, 0.16, 0.55
_LABEL = 0.5  # a line of text over a server or rack
_LABELLED = 128  # devices up to which each shows its rank and coordinates
_ROW = 4  # devices side by side: a group of four of Ascend 910A


def draw(table: RankTable, mesh: Mesh, path: str | Path, servers_per_rack: int | None = None) -> None:
    """Draws a rank table as a PNG.

    Up to 128 devices each shows its rank and (stage, data, tensor); with more, each server shows what its
    devices have in common.

    Args:
        table: A table without problems that lists its servers rack by rack.
        mesh: A grid of as many ranks as the table has.
        servers_per_rack: By default all servers are in one rack.

    Raises:
        ValueError: The sizes of table and grid differ.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if table.size != mesh.size:
        raise ValueError(f"the table has {table.size} devices, {mesh} has {mesh.size}; change a degree")
    per_rack = len(table.servers) if servers_per_rack is None else servers_per_rack
    racks = [table.servers[i : i + per_rack] for i in range(0, len(table.servers), per_rack)]
    picture = _Picture(mesh, racks)
    width, height = picture.size
    inch = min(0.95 if picture.labelled else 0.28, 60 / max(width, height))
    figure, axes = pyplot.subplots(figsize=(max(width * inch, 6.5) + 0.4, height * inch + 1.5))
    picture.paint(axes)
    axes.set(xlim=(-0.1, width + 0.1), ylim=(height + 0.1, -0.1), aspect="equal")
    axes.axis("off")
    axes.set_title(_title(mesh, table, len(racks)), fontsize=13, pad=12)
    axes.legend(
        handles=picture.legend(), title=picture.key, loc="upper center", bbox_to_anchor=(0.5, -0.005),
        ncols=min(mesh.pp, 16), frameon=False, fontsize=9, title_fontsize=9, handlelength=1.0,
        columnspacing=1.2,
    )  # fmt: skip
    save_figure(figure, path, dpi=110 if picture.labelled else 90, bbox_inches="tight")


def save_figure(figure: Figure, path: str | Path, **how: Any) -> None:
    """Saves a figure so that the file is replaced wholly or not at all, and closes the figure.

    Args:
        path: File to write; its ending names the format, PNG if it has none.
        how: Arguments of matplotlib's savefig.

    Raises:
        OSError: The file cannot be written; an earlier picture is still there.
        ValueError: Matplotlib cannot write the format.
    """
    from matplotlib import pyplot

    form = Path(path).suffix.removeprefix(".").lower() or "png"
    try:
        with replacing_file(path, binary=True) as stream:
            figure.savefig(stream, format=form, **how)
    finally:
        pyplot.close(figure)


def _title(mesh: Mesh, table: RankTable, racks: int) -> str:
    def count(number: int, what: str) -> str:
        return f"{number:,} {what}{'s' * (number != 1)}"

    places = f"{count(table.size, 'device')} on {count(len(table.servers), 'server')}"
    places += f" in {racks} racks" * (racks > 1)
    return f"{count(mesh.pp, 'stage')} × {mesh.dp} data parallel × {mesh.tp} tensor parallel: {places}"


class _Picture:
    """Places racks, servers and devices; lengths are in units of a device's width, y points downwards."""

    def __init__(self, mesh: Mesh, racks: list[tuple[Server, ...]]) -> None:
        self.mesh, self.racks = mesh, racks
        self.labelled = mesh.size <= _LABELLED
        most = max(len(server.devices) for rack in racks for server in rack)
        self.row = _ROW if self.labelled else min(most, 2 * _ROW)
        self.lines = math.ceil(most / self.row)
        self.server_width = self.row + 2 * _MARGIN
        self.server_height = self.lines * _HEIGHT + 2 * _MARGIN + _LABEL * (1 if self.labelled else 1.3)
        # One rack of few servers reads best as a row of pairs; many racks as rows of eight.
        self.rack_columns = min(len(racks), 8)
        self.server_columns = min(len(racks[0]), 2) if len(racks) == 1 else 1
        server_rows = math.ceil(max(map(len, racks)) / self.server_columns)
        self.rack_width = self.server_columns * (self.server_width + _MARGIN) + _MARGIN
        self.rack_height = server_rows * (self.server_height + _MARGIN) + _MARGIN + self._rack_label

    @property
    def _rack_label(self) -> float:
        return (0.6 if self.labelled else 1.3) if len(self.racks) > 1 else 0

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the picture."""
        rows = math.ceil(len(self.racks) / self.rack_columns)
        return (
            self.rack_columns * (self.rack_width + _RACK_GAP) - _RACK_GAP,
            rows * (self.rack_height + _RACK_GAP) - _RACK_GAP,
        )

    def paint(self, axes: Axes) -> None:
        for number, rack in enumerate(self.racks):
            row, column = divmod(number, self.rack_columns)
            x, y = column * (self.rack_width + _RACK_GAP), row * (self.rack_height + _RACK_GAP)
            _box(axes, x, y, self.rack_width, self.rack_height, "#f1f1f1", "#999999")
            if len(self.racks) > 1:
                text = f"rack {number}: {self._shared([r for s in rack for r in s.ranks])}"
                self._text(
                    axes, x + _MARGIN, y + self._rack_label / 2 + _MARGIN / 2, text, 1.25, weight="bold"
                )
            for place, server in enumerate(rack):
                line, step = divmod(place, self.server_columns)
                self._server(
                    axes,
                    server,
                    x + _MARGIN + step * (self.server_width + _MARGIN),
                    y + _MARGIN + self._rack_label + line * (self.server_height + _MARGIN),
                )

    def _server(self, axes: Axes, server: Server, x: float, y: float) -> None:
        _box(axes, x, y, self.server_width, self.server_height, "white", "#555555")
        label = self.server_height - self.lines * _HEIGHT - 2 * _MARGIN
        if self.labelled:
            text = f"server {server.server_id}: {self._shared(server.ranks)}"
        else:
            text = f"{self._shared(server.ranks)}: ranks {ranges(server.ranks)}"
        self._text(axes, x + _MARGIN, y + label / 2 + _MARGIN / 2, text, 1.0)
        for place, device in enumerate(server.devices):
            line, column = divmod(place, self.row)
            left, top = x + _MARGIN + column, y + _MARGIN + label + line * _HEIGHT
            stage, data, tensor = self._place(device.rank_id)
            _box(axes, left, top, 1, _HEIGHT, _colour(stage, self.mesh.pp), "white")
            if self.labelled:
                middle = left + 0.5
                ink = _ink(_colour(stage, self.mesh.pp))
                axes.text(middle, top + 0.33, str(device.rank_id), ha="center", va="center", fontsize=15,
                          weight="bold", color=ink)  # fmt: skip
                axes.text(middle, top + 0.65, f"({stage}, {data}, {tensor})", ha="center", va="center",
                          fontsize=8.5, color=ink)  # fmt: skip

    def _place(self, rank: int) -> tuple[int, int, int]:
        place = self.mesh.coordinates(rank)
        return place.stage, place.data, place.tensor

    def _shared(self, ranks: list[int] | tuple[int, ...]) -> str:
        """Returns the coordinates that all the ranks have in common, and the ranges of the others."""
        places = [self.mesh.coordinates(rank) for rank in ranks]
        parts = []
        for axis in AXES:
            values = {place.along(axis) for place in places}
            if len(values) < self.mesh.degree(axis):
                parts.append(f"{COORDINATE_OF[axis]} {ranges(values)}")
        return ", ".join(parts) or "the whole grid"

    def _text(self, axes: Axes, x: float, y: float, text: str, scale: float, weight: str = "normal") -> None:
        size = (9.5 if self.labelled else 6.2) * scale
        axes.text(x, y, shown(text), ha="left", va="center", fontsize=size, weight=weight, color="#222222",
                  parse_math=False)  # fmt: skip

    @property
    def key(self) -> str:
        """The legend: what the labels mean."""
        return (
            "rank, and (stage, data, tensor) below it" if self.labelled else "a row: the devices of a server"
        )

    def legend(self) -> list[Any]:
        from matplotlib.patches import Patch

        stages = range(self.mesh.pp)
        return [Patch(color=_colour(stage, self.mesh.pp), label=f"stage {stage}") for stage in stages]


def _box(axes: Axes, x: float, y: float, width: float, height: float, face: Any, edge: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), width, height, facecolor=face, edgecolor=edge, linewidth=0.8))


def _colour(stage: int, stages: int) -> tuple[float, ...]:
    """Returns a stage's colour, from dark blue to yellow: it is readable in grey and for the colour-blind."""
    from matplotlib import colormaps

    return colormaps["viridis"](0.12 + 0.83 * stage / max(stages - 1, 1))


def _ink(colour: tuple[float, ...]) -> str:
    red, green, blue = colour[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
