"""Axes are names in tables: few modules read a degree by its name, and a fourth axis concerns no others.

The planner, the proof's formulas and the commands are about these three axes by nature and are not counted.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pangu_alpha
from pangu_alpha.parallel.mesh import AXES

PACKAGE = Path(pangu_alpha.__file__).parent
COUNTED = ("config", "data", "network", "model", "parallel", "checkpoint", "training", "inference")
# Module -> the axes it reads, and why no table can carry it.
READERS = {
    "config.parallel": {"dp", "tp", "pp"},  # the plan
    "config.run": {"dp"},  # which processes read which rows
    "parallel.apply": {"pp"},  # MindSpore's stages
    "parallel.context": {"pp"},
    "parallel.layout": {"pp"},
    "parallel.mesh": {"dp", "tp", "pp"},  # the grid
    "parallel.world": {"dp", "tp", "pp"},  # says them in a message
    "checkpoint.foreign.mindspore.export": {"dp", "tp", "pp"},  # the official code's own rule has dp and mp
    "checkpoint.foreign.mindspore.strategy_file": {"pp"},  # a file for each stage
    "training.checks.replicas": {"pp"},
    "training.checks.rows": {"dp"},  # which rows a rank reads
    "training.loop": {"dp", "tp", "pp"},
    "training.partitioned.engine": {"dp"},
    "training.partitioned.step": {"pp"},
}


def degrees_read(path: Path) -> set[str]:
    """The axes that a module reads as attributes."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and node.attr in AXES}


def test_no_other_module_reads_an_axis_by_name():
    found = {}
    for package in COUNTED:
        for path in (PACKAGE / package).rglob("*.py"):
            if axes := degrees_read(path):
                found[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = axes
    assert found == READERS
