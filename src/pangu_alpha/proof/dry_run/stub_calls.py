"""Which stubs of CANN a dry run has called, and which of them are known to do.

A stub returns 0 and leaves alone what its arguments point to, which answers some questions rightly and others
wrongly. A call of a function whose answer nobody has thought about is refused, so that a version of MindSpore
that asks more does not go on with a wrong answer. Functions that MindSpore looks up by name while it runs are
not among the stubs: they are absent, and it knows that.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

from pangu_alpha.proof.dry_run.cann import COUNTS, stubs_in_use

# What a call does that MindSpore 2.9.0 makes while it compiles, and why doing nothing is right.
KNOWN = {
    # ge::OperatorCreatorRegister::OperatorCreatorRegister(char const*, std::function<...> const&)
    "_ZN2ge23OperatorCreatorRegisterC1EPKcRKSt8functionIFNS_8OperatorERKNS_12AscendStringEEE": (
        "a library registers an operator with the graph engine when it is loaded; no dry run uses that engine"
    ),
}


def counted() -> dict[str, int]:
    """How often this process has called each stub; those never called are left out.

    Empty where a real CANN was loaded, or no library at all.
    """
    found = stubs_in_use()
    if found is None:
        return {}
    path, names = found
    try:
        library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:  # not loaded
        return {}
    numbers = (ctypes.c_uint32 * len(names)).in_dll(library, COUNTS)
    return {name: number for name, number in zip(names, numbers, strict=True) if number}


def refuse_unknown(calls: Mapping[str, int]) -> None:
    """Refuses calls of functions that are not in KNOWN.

    Args:
        calls: What `counted` gave.

    Raises:
        ValueError: There is one; all are named.
    """
    if names := sorted(set(calls) - set(KNOWN)):
        raise ValueError(
            f"MindSpore called {', '.join(names)} of CANN; the stub answered 0, which nobody has found to be "
            "right; make the dry run where CANN is installed, or note in stub_calls.py what 0 means"
        )
