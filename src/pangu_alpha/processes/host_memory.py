"""How much memory the machine has left, and how glibc's malloc returns this process's memory to it."""

from __future__ import annotations

import ctypes
from pathlib import Path

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


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory that processes can still take without swapping; None if the system does not say.

    The smaller one of what the machine has (MemAvailable of /proc/meminfo) and what the control group may
    still take (cgroup version 2). Files that the system merely keeps in memory count as available.

    Args:
        root: Folder that contains proc and sys.
    """
    left = [_machine(root / "proc/meminfo"), _control_group(root / "sys/fs/cgroup")]
    return min((each for each in left if each is not None), default=None)


def _machine(path: Path) -> int | None:
    kilobytes = _fields(path).get("MemAvailable:")
    return None if kilobytes is None else int(kilobytes) * 1024


def _control_group(folder: Path) -> int | None:
    try:
        limit = (folder / "memory.max").read_text("ascii").strip()
        used = int((folder / "memory.current").read_text("ascii"))
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    files = int(_fields(folder / "memory.stat").get("inactive_file", "0"))
    return max(0, int(limit) - used + files)


def _fields(path: Path) -> dict[str, str]:
    """The second word of each line, by the first."""
    try:
        lines = path.read_text("ascii").splitlines()
    except OSError:
        return {}
    return {words[0]: words[1] for words in map(str.split, lines) if len(words) > 1}
