"""The command lines: each parses its options, calls the package, and returns an exit code."""

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
    "check_cluster",
    "checkpoint",
    "corpus",
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
    "serve",
    "train",
    "vocab",
]


def no_program(instead: str) -> NoReturn:
    """Refuses `python -m` for a module that is only a part of a command, and would seem to succeed silently.

    Args:
        instead: The words after `python -m` that start the command.

    Raises:
        SystemExit: Always, with exit code 2.
    """
    print(f"error: this module is a part of a command; use `python -m {instead}`", file=sys.stderr)
    sys.exit(2)


def run_main(main: Callable[[list[str]], int | None]) -> None:
    """Runs a command, and ends the process with its exit code.

    Args:
        main: Takes the words of the command line; returns an exit code or None.

    Raises:
        SystemExit: Always. The code is 2 after a ValueError or an OSError, which the user can fix and which
            are printed as a sentence. It is 128 + the signal's number after Ctrl-C, and when the reader of
            the output stops. Other exceptions are bugs, and keep their traceback.
    """
    # `python cli/evaluate.py` puts this folder on the path, which would hide Hugging Face's package
    # `evaluate`.
    with suppress(ValueError):
        sys.path.remove(os.path.dirname(__file__))
    streams: tuple[Any, Any] = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")  # a name that cannot be shown must not fail the command
    end_with_launcher()
    try:
        code = main(sys.argv[1:]) or 0
        sys.stdout.flush()
        sys.exit(code)
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _unread(sys.stdout.fileno()):  # `head` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush succeeds
            sys.exit(128 + signal.SIGPIPE)
        print(f"error: {shown(_said(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:  # long tasks put a hint on how to continue into it
        print(str(error) or "interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _unread(descriptor: int) -> bool:
    """Whether nobody reads any longer what is written to a pipe."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _said(error: Exception) -> str:
    """The message for users; for an error of the system, the file and what is wrong, without a number."""
    if not isinstance(error, OSError) or error.filename is None or error.filename2 is not None:
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"{error.filename}: there is no such file or folder"
    return f"{error.filename}: {error.strerror}"
