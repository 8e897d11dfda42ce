"""Paths as a user writes them: `~`, `~user`, `$NAME` and `${NAME}` mean what they mean to a shell.

A shell leaves them as they are in `--output='~/x'`, `--output=~/x`, `run.output=~/x` and in a YAML file;
taken literally they would make a folder named `~`. And what lies at a path, where a link must not count.
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
    """A path with `~` at its front and all variables of the environment replaced.

    A `~` further in the path stays, and so does a `$` that no name follows. An existing file whose own name
    looks like an unknown variable or user is taken as it is.

    Raises:
        ReadError: There is no such variable or user, says which; or no file can have such a name.
    """
    if "\0" in text:
        raise ReadError(f"{quoted(text)}: a path cannot hold a NUL character; write it without")
    # an empty one would turn ${DATA}/train into /train
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
    """A path at which nothing lies: this one, else NAME-2, NAME-3, ..."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def is_real_folder(path: Path) -> bool:
    """Whether a folder itself lies at a path, not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
