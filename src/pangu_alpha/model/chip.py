"""Which chip this process computes on, as MindSpore names it."""

from __future__ import annotations

from pangu_alpha.config.families import chip_of


def find_chip() -> str | None:
    """The chip by MindSpore's name of it; None where that is unknown, as in a process that only compiles."""
    return chip_of(soc_version())


def soc_version() -> str:
    """What MindSpore calls the chip, such as "ascend910b"; "" where it knows none.

    MindSpore 2.9 has no public name for this: mindspore.hal.get_device_name is announced to be removed and
    gives the chip's own name, in which "Ascend910B" is a 910A. MindSpore's loss scaling asks as we do.
    """
    from mindspore._c_expression import MSContext

    return MSContext.get_instance().get_ascend_soc_version()
