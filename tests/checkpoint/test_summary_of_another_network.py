"""The figures of a checkpoint come from the table of its own network's parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pangu_alpha.checkpoint.native.format import Manifest
from pangu_alpha.checkpoint.summary import summarize, summary_lines
from pangu_alpha.checkpoint.tensors import Box, Piece, Source, Stored
from pangu_alpha.config.model_families import register_family
from pangu_alpha.network.parameters import parameter_shapes, register_rows
from pangu_alpha.network.rows import Constant, Normal, Row, Stage


@dataclass(frozen=True)
class Hut:
    """A network of one matrix and one vector."""

    width: int
    family: Literal["hut"] = "hut"
    meaning = {}
    compute_dtype = "float32"
    activation = "gelu"
    dropout = 0.0

    @property
    def parameter_count(self) -> int:
        return self.width * self.width + self.width

    def misfits(self, plan) -> Iterator[str]:
        yield from ()


register_family("hut", Hut)
register_rows(
    Hut,
    [
        Row("wall", "W W", Normal(1.0), True, (None, None), Stage.FIRST, group="walls"),
        Row("roof", "W", Constant(0.0), False, (None,), Stage.FIRST),
    ],
    {"W": "width"},
)


def stored(shape):
    box = Box((0,) * len(shape), shape)
    return Stored(shape, (Piece(box, Path("model.safetensors"), ((0, 4),), "float32"),))


def test_summary_of_another_network(tmp_path):
    manifest = Manifest(3, 12, {"model": {"width": 4, "family": "hut"}})
    weights = {name: stored(shape) for name, shape in parameter_shapes(Hut(4)).items()}
    moments = {f"{moment}.wall": stored((4, 4)) for moment in ("adam_m", "adam_v")}
    found = summarize(Source(tmp_path, "weights", manifest, {"model": weights, "optimizer": moments}))
    assert found.parameters == 20 and found.shipped is None
    assert [(each.stem, each.name, each.elements) for each in found.groups] == [
        ("model", "walls", 16),
        ("model", "other", 4),
        ("optimizer", "walls", 32),
    ]
    assert "  model      width 4, family hut" in list(summary_lines(found, tensors=False))
