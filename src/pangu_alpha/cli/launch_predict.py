"""Launches predict.py several times on one node, each worker a whole model and a share of the prompts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from pangu_alpha.cli.launch import check_devices, dry, environment_of, new_folder, run_attempts
from pangu_alpha.cli.predict import checked
from pangu_alpha.files.reading import read_text
from pangu_alpha.files.writing import write_text
from pangu_alpha.parallel.launch import Job, plain_nodes


def launch_predict(program: str, options: argparse.Namespace, words: Sequence[str]) -> int:
    """Shares the prompts out, runs the workers and joins what they wrote.

    Args:
        program: Path of predict.py.
        options: The launcher's.
        words: Those of predict.py.

    Returns:
        Exit code.

    Raises:
        ValueError: Words that predict.py would refuse, fewer prompts than workers, or a missing device.
    """
    source = Path(options.prompt_file)
    size = options.nproc or 1
    checked([*words, "--prompt-file", options.prompt_file])  # every worker would refuse the same
    prompts = [line for line in read_text(source).split("\n") if line.strip()]
    if len(prompts) < size:
        raise ValueError(f"{source}: {len(prompts)} prompts for {size} workers; lower --nproc")
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
        (shares / f"prompts_{rank}{source.suffix}").write_text("\n".join(share) + "\n", "utf-8")
    code = run_attempts(_with_shares(job, shares, source.suffix), nodes[0], options)
    if code == 0:
        join_outputs([shares / f"output_{rank}.jsonl" for rank in range(size)], Path(options.output))
    return code


def _with_shares(job: Job, shares: Path, suffix: str) -> Job:
    """The job whose workers find their share by their rank, which stands for {rank}."""
    files = ("--prompt-file", str(shares / ("prompts_{rank}" + suffix)),
             "--output", str(shares / "output_{rank}.jsonl"))  # fmt: skip
    return Job((*job.program, *files), job.nodes, job.start, job.environment, bind_cores=job.bind_cores)


def join_outputs(parts: Sequence[Path], output: Path) -> None:
    """Joins JSON lines of shares, in order, counting their `index` on through all of them."""
    before, lines = 0, []
    for part in parts:
        rows = [json.loads(line) for line in part.read_text("utf-8").splitlines()]
        rows.sort(key=lambda row: row["index"])
        lines += [json.dumps(row | {"index": row["index"] + before}, ensure_ascii=False) for row in rows]
        before += len(rows)
    write_text(output, "".join(line + "\n" for line in lines))
