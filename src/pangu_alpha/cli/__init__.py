"""The command lines: argparse on the outside, one call of the package inside, an exit code at the end."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from pangu_alpha.files.shown import shown
from pangu_alpha.processes.belonging import end_with_launcher

__all__ = [
    "checkpoint",
    "evaluate",
    "fetch",
    "launch",
    "merge_checkpoint",
    "no_program",
    "parser",
    "plan",
    "predict",
    "preprocess",
    "rank_table",
    "run_main",
    "train",
    "vocab",
]


def no_program(instead: str) -> NoReturn:
    """Ends `python -m` of a module that is a part of a command, which would do nothing and look well.

    Args:
        instead: The command, as it is called.

    Raises:
        SystemExit: Always, with exit code 2.
    """
    print(f"error: this module is a part of a command; use `python -m {instead}`", file=sys.stderr)
    sys.exit(2)


def run_main(main: Callable[[list[str]], int | None]) -> None:
    """Runs a command and leaves the process with its exit code.

    Args:
        main: Takes the words of the command line; returns an exit code or None.

    Raises:
        SystemExit: Always. 2 after a ValueError or an OSError, which are the user's to mend and are
            printed in a sentence; 128 + the signal's number after Ctrl-C, or when whoever reads the
            output stops; other exceptions are ours and keep their traceback.
    """
    with suppress(ValueError):  # of `python cli/evaluate.py`: would hide Hugging Face's package of that name
        sys.path.remove(os.path.dirname(__file__))
    streams: tuple[Any, Any] = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")  # a name that cannot be shown is no failure
    end_with_launcher()
    try:
        code = main(sys.argv[1:]) or 0
        sys.stdout.flush()
        sys.exit(code)
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _unread(sys.stdout.fileno()):  # head has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the last flush
            sys.exit(128 + signal.SIGPIPE)
        print(f"error: {shown(_said(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:  # what works through long tasks says in it how to go on
        print(str(error) or "interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _unread(descriptor: int) -> bool:
    """Whether nobody reads what is written to a pipe."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _said(error: Exception) -> str:
    """The error as a user reads it: of the system's, the file and what is wrong, without a number."""
    if not isinstance(error, OSError) or error.filename is None or error.filename2 is not None:
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"{error.filename}: there is no such file or folder"
    return f"{error.filename}: {error.strerror}"
