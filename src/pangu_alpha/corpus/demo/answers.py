"""Compares what became of the planted pages with the answers: a matrix of kind by fate."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pangu_alpha.corpus.demo.planted import KEPT

LOST = "not found"


@dataclass(frozen=True)
class Confusion:
    """How many planted pages of each kind had each fate.

    Args:
        counts: By kind and fate.
        wrong: Addresses with a fate that the answers do not allow, and that fate.
    """

    counts: Mapping[tuple[str, str], int]
    wrong: Mapping[str, str]

    def table(self) -> str:
        """The matrix as text: one line a kind."""
        kinds = list(dict.fromkeys(kind for kind, _ in self.counts))
        width = max(map(len, kinds))
        rows = []
        for kind in kinds:
            fates = [f"{fate} {count:,}" for (each, fate), count in self.counts.items() if each == kind]
            rows.append(f"{kind.ljust(width)}  {', '.join(fates)}")
        verdict = f"{len(self.wrong):,} of {sum(self.counts.values()):,} planted pages are wrong"
        return "\n".join([*rows, verdict])


def fates(run: str | Path) -> dict[str, str]:
    """What became of every address of a finished run: "kept", or the reason of the drop.

    Args:
        run: The output folder of the run.
    """
    run = Path(run)
    folders = json.loads((run / "corpus.json").read_text("utf-8"))["stages"]  # not those of earlier settings
    stages = [run / "stages" / name for name in folders.values()]
    reasons: dict[str, str] = {}
    urls: dict[int, str] = {}
    for folder in stages:
        if folder.name.startswith("extract-"):
            for path in sorted(folder.glob("part-*.text.parquet")):
                columns = pq.read_table(path, columns=["id", "url"]).to_pydict()
                urls.update(zip(columns["id"], columns["url"], strict=True))
            for path in sorted(folder.glob("part-*.dropped.parquet")):
                columns = pq.read_table(path, columns=["url", "reason"]).to_pydict()
                reasons.update(zip(columns["url"], columns["reason"], strict=True))
    dropped = _by_rule(stages) | _by_copy(stages)
    return {**{url: dropped.get(id_, KEPT) for id_, url in urls.items()}, **reasons}


def _by_rule(stages: list[Path]) -> dict[int, str]:
    found: dict[int, str] = {}
    for path in _files(stages, "filter-", "part-*.measures.parquet"):
        columns = pq.read_table(path, columns=["id", "reason"]).to_pydict()
        pairs = zip(columns["id"], columns["reason"], strict=True)
        found.update((id_, reason) for id_, reason in pairs if reason is not None)
    return found


def _by_copy(stages: list[Path]) -> dict[int, str]:
    found: dict[int, str] = {}
    for stage, reason in (("exact-", "exact_duplicate"), ("components-", "near_duplicate")):
        for path in _files(stages, stage, "part-*.removals.parquet"):
            columns = pq.read_table(path, columns=["id", "kept_id"]).to_pydict()
            pairs = zip(columns["id"], columns["kept_id"], strict=True)  # those kept have a row, too
            found.update((id_, reason) for id_, kept in pairs if id_ != kept)
    return found


def _files(stages: list[Path], stage: str, pattern: str) -> list[Path]:
    return [
        path for folder in stages if folder.name.startswith(stage) for path in sorted(folder.glob(pattern))
    ]


def confusion(answers: str | Path, found: Mapping[str, str]) -> Confusion:
    """Holds the fates of a run against the answers of `write_demo`.

    Args:
        answers: The file answers.jsonl.
        found: From `fates`.
    """
    counts: Counter[tuple[str, str]] = Counter()
    wrong = {}
    for line in Path(answers).read_text("utf-8").splitlines():
        answer = json.loads(line)
        fate = found.get(answer["url"], LOST)
        counts[answer["kind"], fate] += 1
        if fate not in answer["fates"]:
            wrong[answer["url"]] = fate
    return Confusion(counts, wrong)
