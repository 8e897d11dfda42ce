"""Launches several predict.py on one node; each worker has the whole model and a share of the prompts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pangu_alpha.cli.launch.attempts import check_devices, dry, environment_of, new_folder, run_attempts
from pangu_alpha.cli.predict import checked
from pangu_alpha.files.reading import parse_json, read_text, require_file
from pangu_alpha.files.shown import shown
from pangu_alpha.files.writing import json_text, write_text
from pangu_alpha.inference.prompts import prompt_lines
from pangu_alpha.launcher.commands import Job, plain_nodes


def launch_predict(program: str, options: argparse.Namespace, words: Sequence[str]) -> int:
    """Divides the prompts among workers, runs them, and joins their outputs.

    Args:
        program: Path of predict.py.
        options: Options of the launcher.
        words: Words for predict.py.

    Returns:
        Exit code.

    Raises:
        ValueError: predict.py would refuse the words, there are fewer prompts than workers, or a device is
            missing.
    """
    source, output = Path(options.prompt_file), Path(options.output)
    size = options.nproc or 1
    prompts = [line for _, line in prompt_lines(require_file(source))]  # a pipe could be read only once
    _check_words(words, str(source))
    _check_output(output)
    if len(prompts) < size:
        raise ValueError(f"{shown(source)}: {len(prompts)} prompts for {size} workers; lower --nproc")
    device = [] if options.device is None else ["--device", options.device]
    nodes = plain_nodes(1, size)
    job = Job((program, *device, *words), nodes, "alone", environment_of(options),
              bind_cores=options.bind_cores)  # fmt: skip
    if options.dry:
        print(dry(_with_shares(job, Path("SHARES"), source.suffix), options.log_dir))
        return 0
    if options.device == "Ascend":
        check_devices(nodes[0])
    shares = new_folder(Path(options.log_dir).absolute() / "shares")
    for rank in range(size):
        share = prompts[rank * len(prompts) // size : (rank + 1) * len(prompts) // size]
        write_text(shares / f"prompts_{rank}{source.suffix}", "\n".join(share) + "\n")
    code = run_attempts(_with_shares(job, shares, source.suffix), nodes[0], options)
    if code == 0:
        join_outputs([shares / f"output_{rank}.jsonl" for rank in range(size)], output)
    else:
        print(
            f"{shown(shares)}: output_N.jsonl, or output_N.jsonl.partial, holds what worker N finished",
            file=sys.stderr,
        )
    return code


def _check_words(words: Sequence[str], prompt_file: str) -> None:
    """Refuses words that every worker would refuse, and prompts that every worker would continue again."""
    options, _, _ = checked([*words, "--prompt-file", prompt_file])
    if options.prompt:
        raise ValueError("--prompt: every worker would continue it; write it into the --prompt-file")


def _check_output(output: Path) -> None:
    """Refuses an output file that could not be written when all workers are done."""
    if output.is_dir():
        raise ValueError(f"--output: {shown(output)} is a folder; give the name of a file")
    if not output.absolute().parent.is_dir():
        raise ValueError(f"--output: {shown(output.parent)}: there is no such folder; make it first")


def _with_shares(job: Job, shares: Path, suffix: str) -> Job:
    """Adds to the job the files of each worker's share; {rank} in their names stands for the rank."""
    files = ("--prompt-file", str(shares / ("prompts_{rank}" + suffix)),
             "--output", str(shares / "output_{rank}.jsonl"))  # fmt: skip
    return Job((*job.program, *files), job.nodes, job.start, job.environment, bind_cores=job.bind_cores)


def join_outputs(parts: Sequence[Path], output: Path) -> None:
    """Joins the JSON lines of the shares in order, and renumbers their `index` through all of them."""
    before, lines = 0, []
    for part in parts:
        texts = enumerate(read_text(part).split("\n"), 1)  # splitlines would also cut at a U+2028 in a text
        rows = [parse_json(text, part, line=number) for number, text in texts if text]
        rows.sort(key=lambda row: row["index"])
        lines += [json_text(row | {"index": row["index"] + before}, indent=None) for row in rows]
        before += len(rows)
    write_text(output, "".join(line + "\n" for line in lines))


if __name__ == "__main__":
    from pangu_alpha.cli import no_program

    no_program("pangu_alpha launch predict")
