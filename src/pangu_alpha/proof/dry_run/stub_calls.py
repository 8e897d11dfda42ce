"""Counts which stubs of CANN a dry run called, and knows for which of them returning 0 is right.

A stub returns 0 and does not write to what its arguments point to; for some functions this is the right
answer, for others not. A call of a function that nobody has examined is refused, so that a MindSpore version
that calls more functions does not continue with a wrong answer. Functions that MindSpore looks up by name at
run time have no stubs; MindSpore notices that they are absent.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

from pangu_alpha.proof.dry_run.cann import COUNTS, stubs_in_use

# Functions that MindSpore 2.9.0 calls while it compiles: what they do, and why doing nothing is right.
KNOWN = {
    # ge::OperatorCreatorRegister::OperatorCreatorRegister(char const*, std::function<...> const&)
    "_ZN2ge23OperatorCreatorRegisterC1EPKcRKSt8functionIFNS_8OperatorERKNS_12AscendStringEEE": (
        "a library registers an operator with the graph engine when it is loaded; no dry run uses that engine"
    ),
}


def counted() -> dict[str, int]:
    """How often this process called each stub; leaves out those that were never called.

    Empty if a real CANN was loaded, or no library at all.
    """
    found = stubs_in_use()
    if found is None:
        return {}
    path, names = found
    try:
        library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:  # RTLD_NOLOAD: this process has not loaded the library
        return {}
    numbers = (ctypes.c_uint32 * len(names)).in_dll(library, COUNTS)
    return {name: number for name, number in zip(names, numbers, strict=True) if number}


def refuse_unknown(calls: Mapping[str, int]) -> None:
    """Refuses calls of functions that are not in KNOWN.

    Args:
        calls: The numbers from `counted`.

    Raises:
        ValueError: If there are such calls; the message names all functions.
    """
    if names := sorted(set(calls) - set(KNOWN)):
        raise ValueError(
            f"MindSpore called {', '.join(names)} of CANN; the stub answered 0, which nobody has found to be "
            "right; make the dry run where CANN is installed, or note in stub_calls.py what 0 means"
        )
