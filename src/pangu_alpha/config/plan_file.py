"""Which part of a YAML holds a plan: its section parallel, or all of it. Knows no field of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OF_A_RUN = ("model", "data", "optim", "run")


def plan_section(values: Mapping[str, Any], file: str) -> Any:
    """The value that holds a plan's fields; what it is, is not checked.

    Raises:
        ValueError: It is the YAML of a run without a section parallel, that is, of one device.
    """
    if "parallel" in values:
        return values["parallel"]
    if sections := [name for name in _OF_A_RUN if name in values]:
        raise ValueError(
            f"{file}: the YAML of a run (it has {', '.join(sections)}) without a section parallel, so its "
            "plan is one device; add the section, or leave the file out"
        )
    return values
