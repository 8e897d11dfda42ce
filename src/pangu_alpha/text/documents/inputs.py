"""Finds the files of a corpus: named one by one, by folders, by patterns, or by a list in a file.

A shell can pass about 2 MB of file names to a program; folders and patterns expanded here have no such limit.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pangu_alpha.files.reading import read_bytes
from pangu_alpha.files.shown import shown
from pangu_alpha.text.documents.opening import kind_by_name

_MOST_FAULTS = 20


@dataclass(frozen=True)
class Inputs:
    """The files of a corpus in order.

    Args:
        passed_over: What was left out of the folders: files whose names are of no known kind, and links to
            folders.
    """

    files: tuple[str, ...]
    passed_over: tuple[str, ...] = field(default=())


def find_inputs(words: Iterable[str], lists: Sequence[str] = (), any_kind: bool = False) -> Inputs:
    """Returns the files that the words name.

    Args:
        words: Each word is a file, a folder, or a pattern (`*`, `?`, `[...]`, and `**` for any depth of
            folders). A folder stands for all files of a known kind in it and below, in the order of their
            names, except hidden ones.
        lists: Files that hold one such word per line; "-" is the standard input. Words may also end with NUL,
            as `find -print0` writes them.
        any_kind: Whether a folder stands for all files in it, also those whose names say nothing of text.

    Raises:
        ValueError: Lists all words that name nothing.
        OSError: A list cannot be read.
    """
    files: list[str] = []
    passed_over: list[str] = []
    faults: list[str] = []
    for word in [*words, *(name for path in lists for name in _listed(path))]:
        if os.path.isdir(word):
            _add_folder(word, files, passed_over, faults, any_kind)
        elif os.path.lexists(word) or not glob.has_magic(word):
            files.append(word)  # a missing one is reported with the other faults of files
        else:
            _add_pattern(word, files, passed_over, faults, any_kind)
    if faults:
        raise ValueError("\n  - ".join(["inputs:", *few(faults)]))
    return Inputs(tuple(files), tuple(passed_over))


def few(faults: Sequence[str]) -> list[str]:
    """Returns the first faults, and how many more there are."""
    more = len(faults) - _MOST_FAULTS
    return [*faults[:_MOST_FAULTS], *([f"and {more:,} more like these"] if more > 0 else [])]


def _listed(path: str) -> Iterator[str]:
    content = sys.stdin.buffer.read() if path == "-" else read_bytes(path)
    content = content.removeprefix(b"\xef\xbb\xbf")
    names = content.split(b"\0") if b"\0" in content else content.splitlines()
    yield from (os.fsdecode(name) for name in names if name.strip())


def _add_folder(
    folder: str, files: list[str], passed_over: list[str], faults: list[str], any_kind: bool
) -> None:
    found = list(_files_below(folder))
    plain = [name for name in found if not os.path.isdir(name)]
    known = [name for name in plain if any_kind or kind_by_name(Path(name)) is not None]
    files.extend(known)
    passed_over.extend(sorted(set(found) - set(known)))
    if not known:
        faults.append(f"{shown(folder)}: a folder without a file of a known kind; name its files")


def _add_pattern(
    pattern: str, files: list[str], passed_over: list[str], faults: list[str], any_kind: bool
) -> None:
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        faults.append(f"{shown(pattern)}: no file has such a name")
    whole = "**" in pattern  # such a pattern already matches each file in the folders it matches
    for name in found:
        if not os.path.isdir(name):
            files.append(name)
        elif not whole:
            _add_folder(name, files, passed_over, faults, any_kind)


def _files_below(folder: str) -> Iterator[str]:
    """Yields the files below a folder in the order of their names.

    Broken links are included, so that a missing text is reported. Links to folders are yielded, but not
    followed, because they may lead to a parent folder.
    """

    def stop(error: OSError) -> None:
        raise error  # os.walk would otherwise skip an unreadable folder silently

    for here, folders, names in os.walk(folder, onerror=stop):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from filter(os.path.islink, (os.path.join(here, name) for name in folders))
        for name in sorted(names):
            path = os.path.join(here, name)
            if not name.startswith(".") and (os.path.isfile(path) or not os.path.exists(path)):
                yield path
