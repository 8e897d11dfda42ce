"""Runs the engine's process: `python -m pangu_alpha.serving.engine NUMBER`, with that of an open socket."""

import logging
import sys

from pangu_alpha.files.shown import log_to_stderr
from pangu_alpha.serving.engine.process import serve_front


def main() -> int:
    """Takes the socket's number from the command line."""
    from pangu_alpha.serving.engine.loaded import describe

    log_to_stderr(logging.WARNING)
    return serve_front(int(sys.argv[1]), describe)


if __name__ == "__main__":
    sys.exit(main())
