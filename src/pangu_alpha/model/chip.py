"""The chip on which this process computes, as MindSpore names it."""

from __future__ import annotations

from pangu_alpha.config.families import chip_of


def find_chip() -> str | None:
    """Returns the chip found by MindSpore; None if it is unknown, as in a process that only compiles."""
    return chip_of(soc_version())


def soc_version() -> str:
    """MindSpore's name of the chip, such as "ascend910b"; "" if it knows none.

    MindSpore 2.9 has no public function for this, so a private one is used, as in MindSpore's own loss
    scaling: mindspore.hal.get_device_name will be removed, and gives the chip's own name, in which
    "Ascend910B" is a 910A. It can go when a public function gives the SoC version.
    """
    from mindspore._c_expression import MSContext

    return MSContext.get_instance().get_ascend_soc_version()
