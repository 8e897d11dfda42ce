"""Command line of checkpoint.py: inspects, compares, verifies and exports checkpoints; lists leftovers."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pangu_alpha.checkpoint.moving.cleaning import Leftover, leftovers, remove
from pangu_alpha.checkpoint.moving.compare import Difference, compare, damage, unchecked
from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.export import DTYPES, FORMS, ExportOptions, export, vocabulary_note
from pangu_alpha.checkpoint.native.store import CheckpointStore
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError, UnclearError
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.summary import size_text, stored_bytes, summarize, summary_json, summary_lines
from pangu_alpha.checkpoint.tensors import Source
from pangu_alpha.cli.options import (
    add_source_options,
    byte_size,
    nonnegative_number,
    path_text,
    plan_fields,
    positive,
    source_options,
    user_path,
)
from pangu_alpha.cli.parser import Parser
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import build
from pangu_alpha.files.shown import shown, shown_json, shown_name
from pangu_alpha.files.writing import json_text

_EPILOG = """\
PATH is a run's output folder (its newest whole checkpoint is taken), a checkpoint, the folder of the released
slices, a .ckpt, MindSpore's slices with their strategy file, a folder of the Hugging Face port, or a
Megatron-style folder or file. To bring any of these into this project: merge_checkpoint.py PATH NEW.

exit code: 0 well; 1 diff found differences, verify found damage; 2 no checkpoint of a known form, not opened,
refused or not written
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs checkpoint.py and returns its exit code; raises ValueError for what the user can fix."""
    options = _parser().parse_args(arguments)
    return options.run(options)


def _inspect(options: argparse.Namespace) -> int:
    summary = summarize(_open(options.path, options))
    if options.json:
        print(shown_json(json_text(summary_json(summary, options.tensors))))
    else:
        print(shown("\n".join(summary_lines(summary, options.tensors))))
    return 0


def _diff(options: argparse.Namespace) -> int:
    either = replace(source_options(options), shared=True)
    first, second = open_source(options.first, either), open_source(options.second, either)
    if options.weights_only:
        first, second = (_weights(source) for source in (first, second))
    total = sum(math.prod(stored.shape) for group in first.tensors.values() for stored in group.values())
    found, worst = 0, 0.0
    with _bar(total, "elements", options) as bar:
        for difference in compare(first, second, options.tolerance, bar.update):
            found, worst = found + 1, max(worst, difference.largest)
            bar.write(shown(_sentence(difference)), file=sys.stdout)
    sides = (f"{sum(map(len, side.tensors.values()))} tensors of {side.path}" for side in (first, second))
    values = f", values by up to {worst:g}" if worst else ""
    said = f"{found} difference{'s' * (found > 1)}{values}" if found else "the same"
    print(shown(f"{', '.join(sides)}: {said}"))
    return 1 if found else 0


def _verify(options: argparse.Namespace) -> int:
    bad = 0
    for path in _checkpoints(options.path):
        try:
            source = _open(path, options)
        except UnclearError:
            raise
        except (CheckpointError, OSError) as error:
            bad += 1
            print(shown(error))
            continue
        total = sum(stored_bytes(stored) for group in source.tensors.values() for stored in group.values())
        with _bar(total, "B", options) as bar:
            found = list(damage(source, bar.update))
        bad += bool(found)
        lines = [f"{path}: damaged:", *(f"  - {line}" for line in found)] if found else [_well(source)]
        print(shown("\n".join(lines)))
    return 1 if bad else 0


def _export(options: argparse.Namespace) -> int:
    plan = None
    if options.plan is not None:
        plan = build(ParallelPlan, plan_fields(options.plan), "parallel")
        if options.to != "mindspore":
            raise ValueError(f"--plan: {options.to} is not cut by a plan; leave it out")
    source = _open(options.source, options)
    limits = Limits(options.budget, options.workers, not options.quiet)
    made = ExportOptions(options.dtype, plan, options.official_names, limits)
    lines = [f"{source.path}: {source.form}", *(f"  note: {note}" for note in source.notes)]
    print(shown("\n".join(lines)), flush=True)
    export(source, options.target, options.to, made)
    print(f"{shown(options.target)}: written, {FORMS[options.to][0]}")
    print(shown(f"  {vocabulary_note(source, options.to)}"))
    return 0


def _clean(options: argparse.Namespace) -> int:
    if options.host and not options.remove:
        raise ValueError("--host: says whose folders are to be removed, too; give --remove with it")
    found = leftovers(options.path)
    if not options.remove:
        print("\n".join([*map(_leftover_line, found), *_advice(options.path, found)]))
        return 0
    for one, reason in remove(found, options.host):
        said = f"not removed: {reason}" if reason else f"removed, {size_text(one.bytes)}"
        print(shown(f"{one.path}: {said}"))
    left = [one for one in found if os.path.lexists(one.path)]
    print("\n".join([*map(_leftover_line, left), *_advice(options.path, left)]))
    return 0


_STATES = {
    "gone": "nobody needs it: --remove removes it",
    "alive": "its writer runs on this host",
    "elsewhere": "whether its writer runs cannot be seen from here",
    "interrupted": "the same command goes on with it; to give it up, remove it by hand",
    "kept": "remove it by hand when it is not needed",
}


def _leftover_line(one: Leftover) -> str:
    days = (time.time() - one.written) / 86400
    age = f"{days:.1f} days" if days >= 1 else f"{max(0.0, days) * 24:.1f} hours"
    what = f"{one.what}, of host {one.host}" if one.host else one.what
    size = size_text(one.bytes)
    return shown(f"{one.path}: {what}; {size}, last written {age} ago; {_STATES[one.state]}")


def _advice(path: Path, found: Sequence[Leftover]) -> list[str]:
    if not found:
        return [shown(f"{path}: nothing is left behind")]
    hosts = sorted({one.host for one in found if one.state == "elsewhere"})
    lines = [f"{len(found)} found, {size_text(sum(one.bytes for one in found))}"]
    lines += [
        shown(f"of host {host}: if you know that none of its processes writes here any more: ")
        + shown(f"--remove --host {shlex.quote(host)}")
        for host in hosts
    ]
    return lines


def _open(path: Path, options: argparse.Namespace) -> Source:
    return open_source(path, source_options(options))


def _checkpoints(path: Path) -> list[Path]:
    """Returns all checkpoints of a run, or the one at a path."""
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such file or folder")
    for store in (CheckpointStore(path), CheckpointStore(path / "checkpoints")):
        if steps := store.steps():
            return [store.path(step) for step in steps]
    return [path]


def _weights(source: Source) -> Source:
    return Source(source.path, source.form, source.manifest, {"model": source.tensors["model"]}, source.notes)


def _sentence(difference: Difference) -> str:
    line = f"{difference.kind}: {shown_name(difference.name or difference.stem)}: {difference.detail}"
    if difference.kind != "values":
        return line
    return f"{line}, largest {difference.largest:g} at {list(difference.place)}"


def _well(source: Source) -> str:
    without = unchecked(source)
    if not without:
        return f"{source.path}: whole; every checksum fits ({source.form})"
    more = f" and {len(without) - 1} more files" if len(without) > 1 else ""
    return (
        f"{source.path}: complete and readable ({source.form}); its form keeps no checksums of "
        f"{without[0].name}{more}, so values cannot be verified"
    )


def _bar(total: int, unit: str, options: argparse.Namespace) -> tqdm:
    return tqdm(total=total, unit=unit, unit_scale=True, disable=options.quiet or None, leave=False)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="checkpoint.py",
        description="Inspects, compares, verifies and exports checkpoints of any form; lists what was left.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = _common()
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add = _command(commands, "inspect", "says what a checkpoint is", _inspect, common)
    add("path", type=user_path, metavar="PATH")
    add("--tensors", action="store_true", help="also show shape, type and pieces of every tensor")
    add("--json", action="store_true", help="print JSON")

    add = _command(commands, "diff", "compares two, tensor by tensor", _diff, common)
    add("first", type=user_path, metavar="A")
    add("second", type=user_path, metavar="B")
    add(
        "--tolerance",
        type=nonnegative_number,
        default=0.0,
        metavar="X",
        help="largest absolute difference that counts as equal (default: 0)",
    )
    add("--weights-only", action="store_true", help="leave the state of the optimizer out")

    add = _command(commands, "verify", "reads everything and compares every checksum", _verify, common)
    add(
        "path",
        type=user_path,
        metavar="PATH",
        help="a checkpoint, or a run's output folder with all its checkpoints",
    )

    add = _command(commands, "clean", "lists, and removes on request, what killed programs left", _clean)
    add("path", type=user_path, metavar="RUN", help="a run's output folder, or one where merges were made")
    add(
        "--remove",
        action="store_true",
        help="remove what processes of this host left behind that no longer run",
    )
    text = "with --remove: also what this other host left; only if none of its processes still writes there"
    add("--host", action="append", default=[], metavar="NAME", help=text)

    _export_options(commands, common)
    return parser


def _export_options(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    forms = "; ".join(f"{name}: {text}" for name, (text, _) in FORMS.items())
    add = _command(commands, "export", "writes one in another form", _export, common)
    add("source", type=user_path, metavar="SRC")
    add("target", type=user_path, metavar="DST", help="file or folder to make; DST.safetensors for --to "
        "megatron, DST.ckpt for --to ckpt")  # fmt: skip
    add("--to", required=True, choices=tuple(FORMS), help=forms)
    add("--dtype", choices=DTYPES, default="float32", help="type of the weights (default: %(default)s)")
    add("--plan", type=path_text, metavar="YAML", help="for --to mindspore: the plan to cut for")
    add("--official-names", action="store_true", help="for --to mindspore and unified: the release's names")
    add(
        "--budget",
        type=byte_size,
        default=Limits().budget,
        metavar="SIZE",
        help="memory of the whole process (default: 2GB)",
    )
    add("--threads", "--workers", dest="workers", type=positive, default=Limits().workers, metavar="N",
        help="threads that read and write (default: %(default)s)")  # fmt: skip


def _common() -> argparse.ArgumentParser:
    common = Parser(add_help=False)
    add = common.add_argument
    add("--quiet", action="store_true", help="show no progress")
    add_source_options(common)
    return common


def _command(
    commands: Any,
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], int],
    *parents: argparse.ArgumentParser,
) -> Callable[..., argparse.Action]:
    parser = commands.add_parser(name, help=text, description=text, parents=parents)
    parser.set_defaults(run=run)
    return parser.add_argument


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
