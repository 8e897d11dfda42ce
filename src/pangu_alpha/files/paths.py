"""Expands paths as a shell does (`~`, `~user`, `$NAME`, `${NAME}`) and finds free names.

A shell does not expand `--output='~/x'`, `--output=~/x`, `run.output=~/x` or a value in a YAML file; taken
literally, such a value would create a folder named `~`.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from pangu_alpha.files.reading import ReadError
from pangu_alpha.files.shown import quoted

_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([^{}]*)\})")


def expand_path(text: str) -> str:
    """Returns a path with a leading `~` and all environment variables replaced.

    A `~` further inside the path stays, and so does a `$` that no name follows. If a file exists whose name
    looks like an unknown variable or user, the path is returned unchanged.

    Raises:
        ReadError: A variable or user does not exist, or the result cannot be the name of a file.
    """
    if "\0" in text:
        raise ReadError(f"{quoted(text)}: a path cannot hold a NUL character; write it without")
    # an empty variable would turn ${DATA}/train into /train
    unknown = [found[0] for found in _VARIABLE.finditer(text) if not os.environ.get(found[1] or found[2])]
    home = os.path.expanduser(text)
    nobody = text.startswith("~") and home == text
    if (unknown or nobody) and os.path.lexists(text):
        return text
    if unknown:
        raise ReadError(
            f"{quoted(text)}: the environment has no value for {quoted(unknown[0])}; set it, or write "
            "the path out"
        )
    if nobody:
        user = text.partition("/")[0]
        raise ReadError(f"{quoted(text)}: there is no user {quoted(user)}; write the path out")
    tail = text.partition("/")[2] if text.startswith("~") else text
    front = home[: len(home) - len(tail)]
    return front + _VARIABLE.sub(lambda found: os.environ[found[1] or found[2]], tail)


def free_name(path: Path) -> Path:
    """Returns the first of `path`, NAME-2, NAME-3, ... that does not exist."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def is_real_folder(path: Path) -> bool:
    """Whether a path is a folder itself and not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
