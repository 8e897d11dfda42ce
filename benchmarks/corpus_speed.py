"""How fast a corpus is built: ratios to other programs and to one worker, peak memory, and a small job.

--part chooses what is measured, each against its goal:

signatures: MinHash of the same texts, 200 hashes of 5 characters: ours, datasketch, rensa, and datatrove by
    the Python of its own environment (--datatrove). Goals: 10 times datasketch, twice datatrove.
dedup: near duplicates end to end: signatures, edges, components and the copy kept, against
    pyspark.ml.MinHashLSH on the same texts (take few: its join takes long). Goals: 10 times, and 10 times
    the 0.11 MB/s a core that the paper's own program reached on another machine.
clean: normalising and all measures, MB/s a core; goal: 20 times the paper's 0.23, on another machine.
workers: seconds of each stage with one worker and with two; goals: 1.8 for map stages, 1.6 for exchanges.
memory: peak memory of one worker over 1, 10 and 100 times as many documents; goal: at most 1.2 times.
small: a job of 10 MB from the command line, start to end; goal: below 5 s.

Programs are processes that take turns; medians are of the rounds that nothing disturbed (rounds.py). The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
from programs import Program, Round, serve, start_all
from rounds import report, verdict

from pangu_alpha.config.corpus import CorpusConfig, SignatureSettings
from pangu_alpha.config.schema import build
from pangu_alpha.text.corpora import default_directory, documents, fetch_all

SETTINGS = SignatureSettings()
CORPORA = ("statutes", "sanguo")
PAPER_DEDUP, PAPER_CLEAN = 0.11, 0.23  # MB/s a core of the paper's platform, if its 352 cores are counted
SIGNERS = ("ours", "datasketch", "rensa", "datatrove")
OPTIONAL = ("rensa", "datatrove", "MinHashLSH")
SLOW = {"datasketch": 10, "datatrove": 4, "MinHashLSH": 1}  # these get one text of so many
PARTS = ("signatures", "dedup", "clean", "workers", "memory", "small")
_PARAGRAPHS = (3, 12)  # of a made-up document


def paragraphs() -> list[str]:
    """Paragraphs of two corpora that can be fetched."""
    missing = [name for name in CORPORA if not any(default_directory().glob(f"{name}.*"))]
    paths = fetch_all(CORPORA) if missing else {name: found(name) for name in CORPORA}
    lines = (line for name in CORPORA for text in documents(name, paths[name]) for line in text.split("\n"))
    return list(dict.fromkeys(line.strip() for line in lines if len(line) >= 20))


def found(name: str) -> Path:
    """File of a corpus that is already there."""
    return next(default_directory().glob(f"{name}.*"))


def texts(count: int, seed: int = 1, copies: float = 0.1) -> list[str]:
    """Documents of paragraphs drawn at random, so that duplicates do not grow with their number.

    Args:
        copies: Share of the documents that are near copies of another one, at most.
    """
    rng, lines = random.Random(seed), paragraphs()
    made = ["\n".join(rng.choices(lines, k=rng.randint(*_PARAGRAPHS))) for _ in range(count)]
    for place in rng.sample(range(count), int(count * copies)):
        text = made[rng.randrange(count)]
        made[place] = text[: len(text) // 2] + "改" + text[len(text) // 2 + 1 :]
    return made


def bytes_of(some: Sequence[str]) -> int:
    """UTF-8 bytes of texts."""
    return sum(len(text.encode()) for text in some)


def share_of(name: str, some: Sequence[str]) -> Sequence[str]:
    """The texts that a program gets: slow ones get fewer, and rates are compared."""
    return some[:: SLOW.get(name, 1)]


def timed(work: Callable[[], Any]) -> Round:
    """A round that does some work once."""

    def run() -> dict[str, float]:
        began = time.perf_counter()
        work()
        return {"seconds": time.perf_counter() - began}

    return run


def ours_signing(some: Sequence[str]) -> Round:
    """Signatures and band keys of all texts, in batches as a worker gets them."""
    from pangu_alpha.corpus.duplicates import band_keys, signatures

    def work() -> None:
        for start in range(0, len(some), 2000):
            band_keys(signatures(some[start : start + 2000], SETTINGS), SETTINGS.bands)

    return timed(work)


def datasketch_signing(some: Sequence[str]) -> Round:
    """datasketch's MinHash over the same folded 5-grams, updated in batches, its fastest way."""
    from datasketch import MinHash

    from pangu_alpha.corpus.folding import fold

    def work() -> None:
        for text in some:
            letters = fold(text)
            sketch = MinHash(num_perm=SETTINGS.permutations)
            sketch.update_batch([letters[i : i + 5].encode() for i in range(max(len(letters) - 4, 1))])

    return timed(work)


def rensa_signing(some: Sequence[str]) -> Round:
    """rensa's MinHash, which is written in Rust, over the same folded 5-grams."""
    from rensa import RMinHash

    from pangu_alpha.corpus.folding import fold

    def work() -> None:
        for text in some:
            letters = fold(text)
            sketch = RMinHash(num_perm=SETTINGS.permutations, seed=1)
            sketch.update([letters[i : i + 5] for i in range(max(len(letters) - 4, 1))])
            sketch.digest()

    return timed(work)


def datatrove_signing(some: Sequence[str], python: str) -> Round:
    """datatrove's signature step, which cuts Chinese into words, in its own environment."""
    path = Path(tempfile.mkdtemp()) / "texts.json"
    path.write_text(json.dumps(list(some)), "utf-8")
    script = str(Path(__file__).with_name("corpus_datatrove.py"))
    numbers = [str(each) for each in (SETTINGS.bands, SETTINGS.rows, SETTINGS.shingle_characters)]
    pipe = subprocess.PIPE
    peer = subprocess.Popen([python, script, str(path), *numbers], stdin=pipe, stdout=pipe, text=True)

    def run() -> dict[str, float]:
        peer.stdin.write("go\n")
        peer.stdin.flush()
        return json.loads(peer.stdout.readline())

    return run


def ours_dedup(some: Sequence[str]) -> Round:
    """All of it in memory, by the functions that the engines call."""
    from pangu_alpha.corpus import duplicates

    def work() -> None:
        rows = duplicates.signatures(some, SETTINGS)
        keys = duplicates.band_keys(rows, SETTINGS.bands)
        pairs = in_order(keys.reshape(-1), np.repeat(np.arange(len(some)), SETTINGS.bands))
        edges = [np.concatenate(each) for each in zip(*duplicates.star_edges([pairs]), strict=True)]
        id, label = duplicates.connected(*edges)
        label, id = in_order(label, id)
        id, label = (np.concatenate(each) for each in zip(*duplicates.members([(id, label)]), strict=True))
        label, id = in_order(label, id)
        longer = duplicates.signatures([some[n] for n in id.tolist()], SETTINGS, SETTINGS.check_hashes)
        block = label, np.zeros_like(id), id, np.ones_like(id), longer
        removed = sum(
            int(each.removed.sum()) for each in duplicates.near_removals([block], SETTINGS.threshold)
        )
        assert removed > 0

    return timed(work)


def in_order(*columns: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows sorted by their columns."""
    order = np.lexsort(columns[::-1])
    return tuple(each[order] for each in columns)


def spark_dedup(some: Sequence[str]) -> Round:
    """pyspark.ml's MinHashLSH with its similarity join, on one local core; starting it is not timed."""
    from pyspark.ml.feature import CountVectorizer, MinHashLSH
    from pyspark.sql import SparkSession

    from pangu_alpha.corpus.folding import fold

    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.shuffle.partitions", 4).config("spark.driver.memory", "3g")
    builder = builder.config("spark.driver.host", "127.0.0.1")
    spark = builder.config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    rows = [
        (number, sorted({letters[i : i + 5] for i in range(max(len(letters) - 4, 1))}))
        for number, letters in enumerate(map(fold, some))
    ]
    frame = spark.createDataFrame(rows, ["id", "shingles"]).cache()
    frame.count()

    def work() -> None:
        counts = (
            CountVectorizer(inputCol="shingles", outputCol="set", binary=True).fit(frame).transform(frame)
        )
        model = MinHashLSH(inputCol="set", outputCol="hashes", numHashTables=SETTINGS.bands, seed=1).fit(
            counts
        )
        near = model.approxSimilarityJoin(counts, counts, 1 - SETTINGS.threshold)
        assert near.filter("datasetA.id < datasetB.id").count() > 0

    return timed(work)


def cleaning(some: Sequence[str]) -> Round:
    """Normalising and all measures of the profile of the paper, as the stages do it."""
    from pangu_alpha.corpus.rules import measures, normalise, profile

    chosen = profile("pangu-alpha")
    context, settings = chosen.context(), chosen.normalising_of("common_crawl")
    return timed(lambda: [measures(normalise(text, settings).text, context) for text in some])


MAKERS: dict[str, Callable[..., Round]] = {
    "ours": ours_signing,
    "datasketch": datasketch_signing,
    "rensa": rensa_signing,
    "our dedup": ours_dedup,
    "MinHashLSH": spark_dedup,
    "cleaning": cleaning,
}


def worker(name: str, count: int, datatrove: str) -> None:
    """One program, as a process of its own."""
    some = share_of(name, texts(count))
    if name == "datatrove":
        serve(datatrove_signing, some, datatrove)
    else:
        serve(MAKERS[name], some)


def rates(programs: Sequence[Program], count: int) -> dict[str, float]:
    """Bytes a second of each program, by the median of its quiet rounds."""
    some = texts(count)
    return {each.name: bytes_of(share_of(each.name, some)) / each.summary().median for each in programs}


def compare(names: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Lets programs take turns; returns rates in MB/s and ratios to ours."""
    arguments = (str(options.texts), options.datatrove)
    programs = start_all(__file__, names, OPTIONAL, 1, *arguments)
    for _ in range(options.rounds):
        for each in programs:
            each.round()
    summaries = {each.name: each.summary() for each in programs}
    report(summaries)
    found = rates(programs, options.texts)
    for each in programs:
        each.close()
    mean = bytes_of(texts(options.texts)) / options.texts
    for name, rate in found.items():
        words = "" if name == names[0] else f", {names[0]} {found[names[0]] / rate:.1f} times"
        print(f"{name}: {rate / mean:,.0f} documents/s, {rate / 1e6:.2f} MB/s{words}")
    ratios = {name: round(found[names[0]] / rate, 2) for name, rate in found.items() if name != names[0]}
    return {
        "mb_per_s": {name: round(rate / 1e6, 3) for name, rate in found.items()},
        "ratios": ratios,
        **verdict(summaries),
    }


def signatures_part(options: argparse.Namespace) -> dict[str, Any]:
    """See the module."""
    names = SIGNERS if options.datatrove else SIGNERS[:-1]
    return compare(names, options)


def dedup_part(options: argparse.Namespace) -> dict[str, Any]:
    """See the module."""
    found = compare(("our dedup", "MinHashLSH"), options)
    return {**found, "times_paper": round(found["mb_per_s"]["our dedup"] / PAPER_DEDUP, 1)}


def clean_part(options: argparse.Namespace) -> dict[str, Any]:
    """See the module."""
    found = compare(("cleaning",), options)
    return {**found, "times_paper": round(found["mb_per_s"]["cleaning"] / PAPER_CLEAN, 1)}


def write_inputs(folder: Path, count: int, files: int, seed: int = 1) -> int:
    """Writes documents as JSON lines; returns their bytes."""
    folder.mkdir(parents=True)
    some, total = texts(count, seed), 0
    for number in range(files):
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in some[number::files]]
        total += (folder / f"{number:03}.jsonl").write_bytes(("\n".join(lines) + "\n").encode())
    return total


def config_of(folder: Path, output: Path, **others: Any) -> CorpusConfig:
    """The configuration of a run over a folder."""
    sources = {"common_crawl": {"inputs": [str(folder / "*.jsonl")]}}
    return build(CorpusConfig, {"sources": sources, "output": str(output), **others})


def run_stages(config: CorpusConfig, workers: int) -> dict[str, float]:
    """Runs a corpus on the local engine; returns the seconds of each stage."""
    from pangu_alpha.corpus.engine import LocalEngine
    from pangu_alpha.corpus.stages import build_corpus

    begun: list[tuple[str, float]] = []

    def progress(stage: str, *_: int) -> Callable[..., None]:
        begun.append((stage, time.perf_counter()))
        return lambda *_: None

    engine = LocalEngine(workers)
    try:
        build_corpus(config, engine, progress, lambda _: None)
    finally:
        engine.close()
    begun.append(("end", time.perf_counter()))
    seconds: dict[str, float] = {}
    for (stage, start), (_, stop) in zip(begun, begun[1:], strict=False):
        seconds[stage] = seconds.get(stage, 0.0) + stop - start
    return seconds


EXCHANGES = ("exact", "edges", "components")


def workers_part(options: argparse.Namespace) -> dict[str, Any]:
    """See the module."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        total = write_inputs(folder / "in", options.texts, 8)
        best: dict[int, dict[str, float]] = {}
        for number in range(options.rounds):
            for count in (1, 2):
                output = folder / f"out-{number}-{count}"
                config = config_of(folder / "in", output, item_bytes=max(total // 8, 1024), partitions=8)
                seconds = run_stages(config, count)
                known = best.setdefault(count, seconds)
                best[count] = {name: min(known[name], seconds[name]) for name in seconds}
    print(f"{total / 1e6:.1f} MB; best of {options.rounds} rounds, seconds with 1 and 2 workers")
    for name in best[1]:
        print(f"{name:14} {best[1][name]:8.2f} {best[2][name]:8.2f}  {best[1][name] / best[2][name]:.2f}")
    kinds = {"exchanges": EXCHANGES, "map stages": [name for name in best[1] if name not in EXCHANGES]}
    found = {
        kind: round(sum(best[1][name] for name in names) / sum(best[2][name] for name in names), 2)
        for kind, names in kinds.items()
    }
    print(", ".join(f"{kind}: {ratio}" for kind, ratio in found.items()))
    return {"one_to_two_workers": found}


def memory_part(options: argparse.Namespace) -> dict[str, Any]:
    """See the module."""
    peaks = {}
    for times in (1, 10, 100):
        command = [sys.executable, __file__, "--peak", str(options.texts * times)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[times] = float(done.stdout.split()[-1])
        print(f"{options.texts * times:,} documents: {peaks[times]:.0f} MB", flush=True)
    ratio = max(peaks.values()) / peaks[1]
    print(f"largest over the first: {ratio:.2f}")
    return {"peak_mb": peaks, "ratio": round(ratio, 3)}


def print_peak(count: int) -> None:
    """Builds a corpus with one worker in this process, and prints its peak memory in MB.

    The inputs are made by another process, so that their memory does not count.
    """
    from programs import peak_memory

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        words = f"pathlib.Path({str(folder / 'in')!r}), {count}, 4"
        code = f"import pathlib, corpus_speed; corpus_speed.write_inputs({words})"
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        # the partitions grow with the input, as the configuration's default would make them
        run_stages(config_of(folder / "in", folder / "out", item_bytes=4 << 20), 1)
        print(peak_memory())


def small_part(options: argparse.Namespace) -> dict[str, Any]:
    """See the module."""
    script = Path(__file__).parents[1] / "src" / "corpus.py"
    seconds = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        count = int(10e6 / (bytes_of(texts(200)) / 200))
        total = write_inputs(folder / "in", count, 4)
        for number in range(options.rounds):
            config = {
                "sources": {"common_crawl": {"inputs": [str(folder / "in")]}},
                "output": str(folder / f"out-{number}"),
            }
            (folder / "corpus.yaml").write_text(json.dumps(config))
            command = [sys.executable, str(script), "run", "--config", str(folder / "corpus.yaml")]
            environment = {**os.environ, "PATH": "", "JAVA_HOME": ""}  # no Java
            began = time.perf_counter()
            subprocess.run(
                [*command, "--engine", "local", "--workers", str(machine.usable_cores())],
                check=True, capture_output=True, env=environment,
            )  # fmt: skip
            seconds.append(time.perf_counter() - began)
            print(f"{total / 1e6:.1f} MB: {seconds[-1]:.2f} s", flush=True)
    return {"seconds": round(min(seconds), 2)}


def main() -> None:
    """Measure and print."""
    options = _parser().parse_args()
    if options.peak:
        print_peak(options.peak)
        return
    found = machine.this_machine(machine.usable_cores())
    parts: dict[str, Callable[..., dict[str, Any]]] = {
        "signatures": signatures_part,
        "dedup": dedup_part,
        "clean": clean_part,
        "workers": workers_part,
        "memory": memory_part,
        "small": small_part,
    }
    print(json.dumps({"part": options.part, **parts[options.part](options), **found}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, default=PARTS[0])
    parser.add_argument("--texts", type=int, default=2000, help="documents")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--datatrove", default="", metavar="PYTHON", help="of an environment with datatrove")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        main()
