"""A small corpus with planted copies, made from a seed, and what a run has made of it."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

from pangu_alpha.config.corpus import CorpusConfig
from pangu_alpha.config.schema import build
from pangu_alpha.corpus.engine import LocalEngine
from pangu_alpha.corpus.stages import build_corpus

# The 3,755 characters of level 1 of GB 2312, some of which are much more frequent than others.
HAN = [bytes([row, cell]).decode("gb18030") for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF)
       if (row, cell) < (0xD7, 0xFA)]  # fmt: skip


class Maker:
    """Draws documents."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.characters = self.random.sample(HAN, len(HAN))
        self.weights = [1 / (place + 20) for place in range(len(HAN))]

    def sentence(self) -> str:
        length = self.random.randint(8, 40)
        end = "。\n" if self.random.random() < 0.2 else "。"
        return "".join(self.random.choices(self.characters, self.weights, k=length)) + end

    def document(self) -> str:
        return "".join(self.sentence() for _ in range(self.random.randint(3, 25)))

    def near_copy(self, text: str) -> str:
        place = self.random.randrange(len(text))
        return f"{text[:place]}龘{text[place + 1 :]}"


def documents(count: int, seed: int = 1) -> list[str]:
    """Documents; of each ten, one has a near copy among them, and one an exact copy."""
    make = Maker(seed)
    first = [make.document() for _ in range(count)]
    texts = first + [make.near_copy(text) for text in first[: count // 10]] + first[-(count // 10) :]
    make.random.shuffle(texts)
    return texts


def write_inputs(folder: Path, count: int = 120, files: int = 6, seed: int = 1) -> list[Path]:
    """Writes JSON lines; the files' names say which are for news."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = documents(count, seed)
    paths = []
    for number in range(files):
        name = f"{'news' if number >= files - 2 else 'web'}-{number}.jsonl"
        lines = [
            json.dumps({"text": text, "url": f"http://example.org/{number}/{place}"}, ensure_ascii=False)
            for place, text in enumerate(texts[number::files])
        ]
        (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
        paths.append(folder / name)
    return paths


def settings(inputs: Path, output: Path, **others) -> dict:
    return {
        "sources": {
            "common_crawl": {"inputs": [str(inputs / "web-*.jsonl")]},
            "news": {"inputs": [str(inputs / "news-*.jsonl")]},
        },
        "output": str(output),
        "item_bytes": 20_000,
        "partitions": 4,
        **others,
    }


def config(inputs: Path, output: Path, **others) -> CorpusConfig:
    return build(CorpusConfig, settings(inputs, output, **others))


def run(config: CorpusConfig, workers: int = 1, until: str | None = None) -> list[str]:
    """Builds a corpus on the local engine; returns the notes."""
    notes: list[str] = []
    engine = LocalEngine(workers)
    try:
        build_corpus(config, engine, lambda *_: lambda *_: None, notes.append, until)
    finally:
        engine.close()
    return notes


def digests(output: Path) -> dict[str, str]:
    """SHA-256 of every final file, and of what says what they are."""
    files = [*output.glob("*/part-*.parquet")]
    return {str(each.relative_to(output)): hashlib.sha256(each.read_bytes()).hexdigest() for each in files}
