"""Controls how glibc's malloc returns this process's memory to the system. Does nothing without glibc."""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h
_ARRAY = 128 * 1024  # bytes; glibc's initial threshold


def keep_arrays_apart() -> None:
    """Makes malloc give every allocation of 128 KiB or more its own memory mapping from now on.

    Arrays of zeros then take no memory until they are written, and freed arrays return to the system at once.
    glibc starts with this threshold, but raises it up to 32 MiB as arrays are freed; the heap, into which
    smaller arrays then go, cannot shrink below the last one that is in use.
    """
    _call("mallopt", _MMAP_THRESHOLD, _ARRAY)


def give_back() -> None:
    """Returns freed memory to the system."""
    _call("malloc_trim", 0)


def _call(name: str, *numbers: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*numbers)
