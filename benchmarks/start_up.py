"""Time from the command to the first token and to the first training step, cold and warm, with where it goes.

Runs the public commands, `python src/train.py` and `python src/predict.py`, on text and a vocabulary made
here, each in a process of its own:

- cold: the files of MindSpore and of this project are not in the page cache
- warm: the next start
- cached: with MindSpore's compile cache (MS_COMPILER_CACHE_ENABLE), filled by the same command before

Each is run as often as --rounds says; medians are of the rounds that nothing disturbed (rounds.py). The split
comes from one more run of each kind in which the parts are timed inside the process: start of Python and its
imports, building the network, loading or drawing weights, compiling graphs, and the rest, which is the first
run itself, reading data and so on.

The last line is JSON, seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import machine
import numpy as np
from rounds import report, summarize

ROOT = Path(__file__).parents[1]
PIECES, DOCUMENTS, LENGTH = 500, 300, 256
PROMPT = "一二三四五"
TRAIN, PREDICT = "first training step", "first token"
STEP = re.compile(rb"step +1/")  # in the line of the first step
STATES = ("cold", "warm", "cached")


def write_inputs(folder: Path, base: str) -> None:
    """Text, vocabulary, records and the config of a run of one step."""
    random = np.random.default_rng(0)
    characters = np.array([chr(0x4E00 + n) for n in range(PIECES // 2)])
    weights = 1 / np.arange(1, len(characters) + 1)
    rows = ["".join(random.choice(characters, 400, p=weights / weights.sum())) for _ in range(DOCUMENTS)]
    lines = [json.dumps({"text": row}, ensure_ascii=False) for row in rows]
    (folder / "text.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    words = ["--input", "text.jsonl", "--size", PIECES, "--output", "vocab.model"]
    finish(folder, "-m", "pangu_alpha.cli.vocab", *words)
    words = ["--vocabulary", "vocab.model", "--output", "records", "--seq-length", LENGTH]
    finish(folder, ROOT / "src/preprocess.py", "--input", "text.jsonl", *words)
    (folder / "run.yaml").write_text(
        f"model: {{base: {base}, vocab_size: {PIECES}, seq_length: {LENGTH}}}\n"
        "data: {train: {text: {records: records}}, vocabulary: vocab.model}\n"
        "run: {output: trained, steps: 1, log_every: 1, device: CPU}\n"
    )


def finish(folder: Path, *words: object) -> None:
    """Runs a Python program to its end.

    Raises:
        RuntimeError: It failed.
    """
    done = subprocess.run([sys.executable, *map(str, words)], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{words}: exit code {done.returncode}: {done.stderr}")


def command(what: str, output: str) -> list[str]:
    """Words of the public command; `output` is the training's folder."""
    if what == TRAIN:
        return [str(ROOT / "src/train.py"), "--config", "run.yaml", f"run.output={output}"]
    words = ["--checkpoint", "trained", "--prompt", PROMPT, "--greedy", "--max-new-tokens", "2"]
    return [str(ROOT / "src/predict.py"), *words, "--device", "CPU"]


def seconds_until_first(what: str, folder: Path, output: str, environment: dict[str, str]) -> float:
    """Seconds from the start of a command until its first step is reported or its first token is printed.

    Raises:
        RuntimeError: It ended before, or failed later.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command(what, output)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if what == TRAIN else subprocess.DEVNULL,
    )
    found, seen = None, b""
    while chunk := os.read(process.stdout.fileno(), 1 << 16):
        seen += chunk
        if found is None and (what == PREDICT or STEP.search(seen)):
            found = time.perf_counter() - began
    if process.wait() or found is None:
        raise RuntimeError(f"{what}: exit code {process.returncode}: {seen.decode(errors='replace')}")
    return found


def drop_pages() -> None:
    """Takes the files of MindSpore, of numpy and of this project out of the page cache."""
    for name in ("mindspore", "numpy", "pangu_alpha"):
        for path in Path(find_spec(name).origin).parent.rglob("*"):
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


class Parts:
    """Times of functions, without the time of those that they call and that are timed as well."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner: list[float] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that does the same and adds its time to a part."""

        def call(*args: Any, **keywords: Any) -> Any:
            began = time.perf_counter()
            self._inner.append(0.0)
            try:
                return function(*args, **keywords)
            finally:
                took = time.perf_counter() - began
                self.seconds[name] = self.seconds.get(name, 0.0) + took - self._inner.pop()
                if self._inner:
                    self._inner[-1] += took

        return call

    def wrap(self, owner: Any, attribute: str, name: str) -> None:
        """Times a function of a module or class from now on."""
        setattr(owner, attribute, self.timed(name, getattr(owner, attribute)))


def split_inside(what: str, began: float, words: list[str]) -> dict[str, float]:
    """Runs a command in this process until its first step or token.

    Args:
        began: Time (time.time) at which this process was started.
        words: Arguments of the command.

    Returns:
        Seconds of each part, and "total".
    """
    import mindspore as ms

    from pangu_alpha.cli import predict, train
    from pangu_alpha.inference import load
    from pangu_alpha.training.engine import Engine
    from pangu_alpha.training.loop import Trainer

    parts = Parts()
    parts.seconds["Python and imports"] = time.time() - began
    parts.wrap(load, "PanguAlpha", "building")
    parts.wrap(load, "load_weights", "loading")
    parts.wrap(Trainer, "__init__", "building")
    parts.wrap(Engine, "initialize", "loading")
    parts.wrap(ms.nn.Cell, "compile", "compiling")

    class ReachedError(Exception):
        """The first step or token is there."""

    def reached(*_: Any) -> None:
        raise ReachedError

    step = Engine.step
    Engine.step = lambda *args, **keywords: reached(step(*args, **keywords))
    predict._Screen.add = reached
    try:
        (train if what == TRAIN else predict).main(words)
    except ReachedError:
        total = time.time() - began
    parts.seconds["the rest"] = total - sum(parts.seconds.values())
    return {**{name: round(each, 2) for name, each in parts.seconds.items()}, "total": round(total, 2)}


def split(what: str, folder: Path, output: str, environment: dict[str, str]) -> dict[str, float]:
    """Runs `split_inside` in a new process."""
    words = ["--worker", what, str(time.time()), *command(what, output)[1:]]
    done = subprocess.run(
        [sys.executable, __file__, *words], cwd=folder, env=environment, capture_output=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(what: str, state: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Median seconds of some starts, and the split of one more; one start before each does not count."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    calls = iter(range(100))

    def start(run: Callable[..., Any]) -> Any:
        if state == "cold":
            drop_pages()
        if state == "cached":  # by run, because MindSpore takes a cached graph only for the same main program
            cache = folder / f"cache of {what} {run.__name__}"
            environment.update(MS_COMPILER_CACHE_ENABLE="1", MS_COMPILER_CACHE_PATH=str(cache))
        return run(what, folder, f"{what} {state} {next(calls)}", environment)

    def repeated(run: Callable[..., Any], count: int) -> list[Any]:
        if state != "cold":
            start(run)
        return [start(run) for _ in range(count)]

    summary = summarize(repeated(seconds_until_first, rounds))
    report({f"{what}, {state}": summary})
    found = {
        "seconds": round(summary.median, 2),
        "disturbed": round(summary.disturbed, 2),
        "spread": round(summary.spread, 2),
        "parts": repeated(split, 1)[0],
    }
    print(f"{what}, {state}: {json.dumps(found)}", flush=True)
    return found


def main() -> None:
    """Prints the times as JSON."""
    if sys.argv[1:2] == ["--worker"]:
        what, began, *words = sys.argv[2:]
        print(f"\n{json.dumps(split_inside(what, float(began), words))}", flush=True)
        os._exit(0)  # nothing of a training that was broken off shall be saved
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", default="tiny", help="model of the zoo (default: tiny)")
    options = parser.parse_args()
    found: dict[str, Any] = {"metric": "start_up", **machine.this_machine(machine.usable_cores())}
    with tempfile.TemporaryDirectory(prefix="start_up_") as name:
        folder = Path(name)
        write_inputs(folder, options.base)
        finish(folder, *command(TRAIN, "trained"))
        for what in (TRAIN, PREDICT):
            found[what] = {state: measure(what, state, folder, options.rounds) for state in STATES}
    print(json.dumps({**found, "rounds": options.rounds}))


if __name__ == "__main__":
    main()
