"""The host's memory of this process, as the system counts it. Does nothing without glibc."""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h
_ARRAY = 128 * 1024  # bytes; what glibc begins with


def keep_arrays_apart() -> None:
    """Gives everything of 128 KiB and more pages of its own from now on.

    Zeros then take no memory until they are written, and what is freed goes back to the system. glibc begins
    like that, but raises the size up to 32 MiB as arrays are freed, and puts what is smaller between others.
    """
    _call("mallopt", _MMAP_THRESHOLD, _ARRAY)


def give_back() -> None:
    """Gives what the process has freed back to the system."""
    _call("malloc_trim", 0)


def _call(name: str, *numbers: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*numbers)
