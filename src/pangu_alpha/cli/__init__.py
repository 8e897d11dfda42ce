"""The command lines: argparse on the outside, one call of the package inside, an exit code at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable


def run_main(main: Callable[[list[str]], int | None]) -> None:
    """Runs a command and leaves the process with its exit code.

    Args:
        main: Takes the words of the command line; returns an exit code or None.

    Raises:
        SystemExit: Always. 2 after a ValueError or an OSError, which are the user's to mend and are
            printed in one line; other exceptions are ours and keep their traceback.
    """
    try:
        sys.exit(main(sys.argv[1:]) or 0)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
