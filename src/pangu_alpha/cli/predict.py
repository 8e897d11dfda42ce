"""Command line of predict.py: continues prompts with the model of a checkpoint."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from pangu_alpha.cli.options import (
    Differs,
    add_checkpoint_option,
    add_options,
    add_source_options,
    add_vocabulary_option,
    config_from,
    path_text,
    positive,
    source_options,
)
from pangu_alpha.cli.parser import Parser
from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.config.run import RunConfig
from pangu_alpha.files.shown import log_to_stderr, shown
from pangu_alpha.files.writing import gathering_file, partial_file
from pangu_alpha.inference.prompts import parse_fields, read_prompt_file, require_text
from pangu_alpha.inference.tasks import TASKS, find_task

if TYPE_CHECKING:
    from pangu_alpha.inference.load import LoadedModel
    from pangu_alpha.inference.text import Piece, TextGenerator

_EPILOG = """\
PanGu-alpha is a base language model: it continues a text and follows no instructions. A --task puts your
fields into a form whose likely continuation is the answer; examples in a prompt file make it likelier.

tasks and their fields:
{tasks}

a prompt file is UTF-8, one prompt a line, or (FILE.jsonl) one JSON object a line: {{"prompt": "..."}}, or
with --task its fields, and optionally "examples": a list of objects with the same fields and the answer.
"""
_SLOTS = 8  # prompts computed together; more gain little on a CPU, and cost memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs predict.py; raises ValueError for what the user can fix."""
    options, prompts, sampling = checked(arguments)
    log_to_stderr()
    if options.interactive:
        _converse(sys.stdin, _load(options).text_generator(options.slots or 1), sampling, options)
        return 0
    prompts = [prompt for prompt in prompts for _ in range(options.samples)]
    with _output(options.output) as file:  # opened before the model, so that a bad path fails at once
        loaded = _load(options)
        context = context_needed(loaded, prompts, sampling)
        generator = loaded.text_generator(options.slots or min(len(prompts), _SLOTS), context)
        pieces = generator.stream(prompts, sampling, options.truncate_left)
        _show(pieces, prompts, options, file)
    return 0


def _load(options: argparse.Namespace) -> LoadedModel:
    logging.info("%s: starting MindSpore and loading it", shown(options.checkpoint))
    # MindSpore takes seconds to import, so this comes after the command line has been checked.
    from pangu_alpha.inference.load import load_for_inference
    from pangu_alpha.parallel.context import use_device

    use_device(options.device)
    loaded = load_for_inference(
        options.checkpoint, options.tokenizer, options.end_of_document, source_options(options)
    )
    logging.info("compiling for the first prompt")
    return loaded


@contextmanager
def _output(path: str | None) -> Iterator[IO[str] | None]:
    """Opens the file of --output, or gives None; says where the lines are if the run does not finish."""
    if path is None:
        yield None
        return
    try:
        with gathering_file(path) as file:
            yield file
    except FileExistsError:
        raise  # the file is of an earlier run
    except BaseException:
        if (partial := partial_file(path)).exists():
            print(f"{shown(partial)}: holds the continuations that were finished", file=sys.stderr)
        raise


def checked(
    arguments: Sequence[str] | None,
) -> tuple[argparse.Namespace, list[str], SamplingConfig]:
    """Parses and checks a command line as far as possible before the model is opened.

    Returns:
        The options, all prompts, and how to draw their continuations.

    Raises:
        ValueError: See `read_prompts`; or sampling cannot use a value.
    """
    options = _parser().parse_args(arguments)
    prompts, stop = read_prompts(options)
    options.stop = [*stop, *(options.stop or ())]
    return options, prompts, config_from(options, SamplingConfig)


def read_prompts(options: argparse.Namespace) -> tuple[list[str], tuple[str, ...]]:
    """Returns all prompts of the command line, and the task's stop texts.

    Raises:
        ValueError: There is no prompt, a file cannot be used, or a task's fields do not fit.
    """
    task = find_task(options.task) if options.task else None
    prompts = list(options.prompt)
    for option in ("prompt", "field", "stop"):
        for word in getattr(options, option) or ():
            require_text(word, f"--{option}")
    if task and prompts:
        raise ValueError("--prompt and --task exclude each other: a task makes the prompt from --field")
    if options.field and not task:
        raise ValueError("--field is for a --task; give one of " + ", ".join(TASKS))
    if options.field and options.prompt_file:
        raise ValueError("--field and --prompt-file exclude each other: the file's objects hold the fields")
    if options.prompt_file:
        prompts += read_prompt_file(options.prompt_file, task)
    elif task and not options.interactive:
        prompts.append(task.render(parse_fields(options.field)))
    _check_interactive(options, bool(prompts or task))
    if not prompts and not options.interactive:
        raise ValueError("no prompt: give --prompt, --prompt-file, --task or --interactive")
    return prompts, task.stop if task else ()


def _check_interactive(options: argparse.Namespace, prompted: bool) -> None:
    if not options.interactive:
        return
    if prompted:
        raise ValueError("--interactive reads its prompts from the terminal; leave out the other ones")
    if options.output is not None or options.samples != 1:
        raise ValueError(
            "--interactive continues each line once, on the screen; leave out --output and --samples"
        )


def context_needed(loaded: LoadedModel, prompts: Sequence[str], sampling: SamplingConfig) -> int:
    """Returns the smallest context of 64, 128, ... slots that holds every prompt with its continuation.

    It is at most the model's own. A small context is faster, because attention reads all slots for every
    token.
    """
    limit = loaded.model.config.seq_length
    needed = max(len(row) for row in loaded.tokenizer.encode_batch(prompts)) + sampling.max_new_tokens
    size = 64
    while size < needed:
        size *= 2
    return min(size, limit)


class _Screen:
    """Prints prompts with their continuations one below the other, although they are generated together.

    A terminal gets control characters as escapes (\\x1b), but a file or a pipe gets every character
    unchanged.

    Args:
        prompts: All prompts, in the order of printing.
        stream: Whether to print the topmost unfinished one as it is generated, not only when it is finished.
    """

    def __init__(self, prompts: Sequence[str], stream: bool) -> None:
        self._pending = list(prompts)
        self._done = [False] * len(prompts)
        self._stream = stream
        self._top = 0
        self._terminal = sys.stdout.isatty()

    def add(self, prompt: int, text: str, reason: str | None) -> None:
        """Takes the next part of a continuation."""
        self._pending[prompt] += text
        if reason is not None:
            self._pending[prompt] += f"\n[{reason}]\n"
            self._done[prompt] = True
        while self._top < len(self._done) and (self._stream or self._done[self._top]):
            pending = self._pending[self._top]
            sys.stdout.write(shown(pending) if self._terminal else pending)
            self._pending[self._top] = ""
            if not self._done[self._top]:
                break
            self._top += 1
        sys.stdout.flush()


def _show(
    pieces: Iterable[Piece],
    prompts: Sequence[str],
    options: argparse.Namespace,
    file: IO[str] | None = None,
) -> None:
    """Prints every prompt with its continuation in order; also writes JSON lines if there is a file."""
    from pangu_alpha.inference.text import with_chinese_punctuation

    if options.punctuation == "chinese":
        pieces = with_chinese_punctuation(pieces, prompts)
    screen = _Screen(prompts, options.stream)
    texts = [""] * len(prompts)
    for piece in pieces:
        screen.add(*piece)
        texts[piece.prompt] += piece.text
        if file and piece.reason:
            line = {"prompt": prompts[piece.prompt], "text": texts[piece.prompt], "reason": piece.reason}
            file.write(json.dumps({"index": piece.prompt, **line}, ensure_ascii=False) + "\n")


def _converse(
    lines: Iterable[str], generator: TextGenerator, sampling: SamplingConfig, options: argparse.Namespace
) -> None:
    """Continues a text by a line and its continuation at a time; a bad line is reported, and left out."""
    from pangu_alpha.inference.text import Conversation

    print(
        "Each line is continued with all before it; an empty line begins a new text. Ctrl-D ends.",
        file=sys.stderr,
    )
    if hasattr(lines, "reconfigure"):
        lines.reconfigure(errors="surrogateescape")  # so that a line that is not UTF-8 can be refused below
    conversation = Conversation(generator, sampling)
    for line in lines:
        if not line.strip():
            conversation = Conversation(generator, sampling)
            continue
        try:
            require_text(line, "line")
            line = line.rstrip("\r\n")
            _show(conversation.turn(line, options.truncate_left), [line], options)
        except ValueError as error:
            print(f"error: {shown(error)}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, TASKS))
    tasks = "\n".join(
        f"  {name:{width}}  {task.summary}: {', '.join(task.fields)}; answer: {task.answer}"
        for name, task in TASKS.items()
    )
    parser = Parser(
        prog="predict.py",
        description="Continue prompts with a trained PanGu-alpha.",
        epilog=_EPILOG.format(tasks=tasks),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add_checkpoint_option(parser)
    add_vocabulary_option(parser)
    add(
        "--end-of-document",
        metavar="PIECE",
        help="control piece that ends a document (default: the checkpoint's)",
    )
    add("--prompt", action="append", default=[], metavar="TEXT", help="text to continue; may be repeated")
    add(
        "--prompt-file",
        type=path_text,
        metavar="FILE",
        help="a prompt a line, or JSON lines, as described below",
    )
    add("--interactive", action="store_true", help="continue line after line from the "
        "terminal, each with all before it")  # fmt: skip
    add("--task", metavar="NAME", help="one of the tasks listed below")
    add("--field", action="append", default=[], metavar="KEY=VALUE", help="a field of the task; may be "
        "repeated")  # fmt: skip
    add_options(parser, SamplingConfig, "*", bounds=False)
    add_source_options(parser)
    add("--samples", type=positive, default=1, metavar="N", help="continuations of each prompt (default: 1)")
    add("--slots", type=positive, metavar="N", help="prompts computed together; for the same N, no bit of a "
        "prompt's results depends on the prompts beside it (default: all, at most 8)")  # fmt: skip
    add("--truncate-left", action="store_true", help="cut off the beginning of prompts that are too long")
    add("--punctuation", choices=("chinese", "as-is"), default="chinese", help="chinese (default): "
        "full-width marks between Chinese characters; as-is: as the vocabulary has them")  # fmt: skip
    add("--stream", action=argparse.BooleanOptionalAction, default=True, help="print text as it comes")
    add("--output", type=path_text, metavar="FILE", help="also write JSON lines, as prompts end: index, "
        "prompt, text, reason; into FILE.partial until all have ended")  # fmt: skip
    add_options(parser, RunConfig, device=Differs(default="auto"))
    return parser


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
