"""Does cleaning help? Networks learn from the web set of `corpus.py demo` before and after its stages.

The development set is a twentieth of the pages that the whole pipeline keeps, drawn by a hash of the page's
path. All pages of such a path, in simplified or traditional script, are taken out of both variants;
`corpus.py compare` then removes lines of the development set that either variant still has, and trains small
networks on equally many tokens of each. --before and --after name stages: `extract` is the text of all pages
as the extractor gives it, `write` the finished corpus. Further options go to `corpus.py compare`.

    python src/corpus.py demo runs/demo
    python benchmarks/corpus_quality.py runs/demo/corpus --output runs/corpus_quality
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq

ONE_IN = 20
LAST = "write"


def texts(corpus: Path, stage: str) -> Iterator[tuple[str, str]]:
    """Address and text of every document that a stage passes on, in the order of their ids."""
    folder = corpus / "stages" / json.loads((corpus / "corpus.json").read_text("utf-8"))["stages"][stage]
    files = corpus.glob("*/part-*.parquet") if stage == LAST else folder.glob("part-*.text.parquet")
    for path in sorted(each for each in files if each.parent.name != "stages"):
        table = pq.read_table(path, columns=["url", "text"])
        yield from zip(table["url"].to_pylist(), table["text"].to_pylist(), strict=True)


def is_drawn(url: str) -> bool:
    """Whether the pages of an address belong to the development set; the host does not matter."""
    digest = hashlib.sha256(urlsplit(url).path.encode()).digest()
    return int.from_bytes(digest[:8], "little") % ONE_IN == 0


def write(path: Path, documents: Iterable[str]) -> Path:
    """Writes documents as JSONL."""
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents if text.strip()]
    path.write_text("".join(lines), "utf-8")
    print(f"{path}: {len(lines):,} documents, {sum(map(len, lines)):,} characters")
    return path


def main() -> int:
    """Writes the two variants and the development set, and compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path, help="output of a corpus run")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--before", default="extract", metavar="STAGE")
    parser.add_argument("--after", default=LAST, metavar="STAGE")
    options, rest = parser.parse_known_args()
    options.output.mkdir(parents=True, exist_ok=True)
    words = []
    for stage in (options.before, options.after):
        left = (text for url, text in texts(options.corpus, stage) if not is_drawn(url))
        words.append(write(options.output / f"{stage}.jsonl", left))
    kept = (text for url, text in texts(options.corpus, LAST) if is_drawn(url))
    words += ["--dev", write(options.output / "held_out.jsonl", kept)]
    words += ["--output", options.output / "compared", *rest]
    return subprocess.call([sys.executable, "-m", "pangu_alpha", "corpus", "compare", *map(str, words)])


if __name__ == "__main__":
    sys.exit(main())
