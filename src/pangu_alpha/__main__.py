"""The command `pangu-alpha VERB ...`, and `python -m pangu_alpha VERB ...`: one name for all programs.

Imports a program when it is called, so that the help is there at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from pangu_alpha import __version__
from pangu_alpha.cli import run_main
from pangu_alpha.cli.parser import Parser
from pangu_alpha.config.schema import nearest

VERBS = {
    "fetch": "fetch the released vocabulary and corpora by name",
    "vocab": "train a vocabulary",
    "corpus": "build a corpus from raw pages: clean text without duplicates",
    "preprocess": "turn text into records",
    "train": "train a model on this device",
    "launch": "train, predict or evaluate on all devices of a node: launch train ..., launch predict ...",
    "evaluate": "evaluate a model on tasks, compare models, and compare perplexity with baselines",
    "predict": "continue prompts",
    "serve": "serve a model over HTTP, for OpenAI's clients and browsers",
    "plan": "search, explain and prove parallel plans",
    "check-cluster": "check, measure and calibrate a cluster in its first hour",
    "rank-table": "build, check and draw HCCL rank tables",
    "checkpoint": "inspect, compare, verify and export checkpoints",
    "merge-checkpoint": "merge a checkpoint, or cut it for another plan",
}
_LAUNCHED = ("train", "predict", "evaluate")
_HELP = ("-h", "--help")
_LAUNCH_HELP = """\
usage: pangu-alpha launch train ...
       pangu-alpha launch predict ...
       pangu-alpha launch evaluate ...

pangu-alpha launch train --help says more, and likewise for the others."""


def main(words: Sequence[str]) -> int | None:
    """Runs the program of a verb.

    Args:
        words: The verb, then the words of its command line.

    Returns:
        The program's exit code.

    Raises:
        ValueError: There is no such verb; names the nearest one.
    """
    if not words or words[0] in _HELP:
        print(_help())
        return 0 if words else 2
    verb, *rest = words
    if verb == "--version":
        print(f"pangu-alpha {__version__}")
        return 0
    if verb not in VERBS:
        raise ValueError(f"{verb!r} is no command; {nearest(verb, VERBS)}")
    if verb == "launch" and rest and rest[0] in _HELP:
        print(_LAUNCH_HELP)
        return 0
    Parser.called_as = f"pangu-alpha {verb}"
    if verb == "launch":
        rest = _launched(rest)
        Parser.called_as += f" {words[1]}"
    return import_module(f"pangu_alpha.cli.{verb.replace('-', '_')}").main(rest)


def _launched(words: Sequence[str]) -> list[str]:
    """The words of the launcher, whose first is the file that every worker runs."""
    if not words or words[0] not in _LAUNCHED:
        raise ValueError("launch: say what, as in `launch train --help` or `launch predict --help`")
    program, *rest = words
    folder = Path(__file__).parent / "cli"
    file = folder / "evaluate" / "__main__.py" if program == "evaluate" else folder / f"{program}.py"
    return [str(file), *rest]


def _help() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f"  {verb:{width}}{text}" for verb, text in VERBS.items()]
    return "\n".join(
        [
            "usage: pangu-alpha COMMAND ...",
            "",
            "PanGu-alpha for MindSpore: from raw text to generated text.",
            "",
            *lines,
            "",
            "pangu-alpha COMMAND --help says more; pangu-alpha --version says which this is.",
        ]
    )


def run() -> None:
    """The console command."""
    run_main(main)


if __name__ == "__main__":
    run()
