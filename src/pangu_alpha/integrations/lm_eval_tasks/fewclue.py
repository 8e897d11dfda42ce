"""Reads FewCLUE's published files as the harness's documents; the YAML files beside it have the templates.

Each document has, for each candidate, the text that is read and the text that is scored, and the index of the
right one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pangu_alpha.files.reading import parse_json, read_text
from pangu_alpha.files.shown import shown

DATA = "PANGU_EVALUATION_DATA"
_SPLITS = {"train": "train_{fold}.json", "test": "test_public.json"}
Row = Mapping[str, Any]


def load(
    folder: str,
    prefix: str,
    scored: str,
    data: str | None = None,
    fold: int = 0,
    **how: Any,
) -> Any:
    """Returns the documents of one set, as a datasets.DatasetDict of "train" and "test".

    Args:
        folder: Of the set, such as "tnews".
        prefix, scored: Templates of the two texts, whose fields are the row's and {label}.
        data: Any folder above the set's; None takes the environment variable PANGU_EVALUATION_DATA.
        fold: Which of the five training files gives the shots.
        how: words, label and ways, see Documents; anything else the harness hands to every loader.

    Raises:
        ValueError: Files are missing or hold another form; the message says where.
    """
    from datasets import Dataset, DatasetDict

    found = _find(data or os.environ.get(DATA), folder)
    rows = {split: _rows(found / name.format(fold=fold)) for split, name in _SPLITS.items()}
    known = {key: how[key] for key in ("words", "label", "ways") if key in how}
    make = Documents(prefix, scored, **known)
    make.learn_labels([row for each in rows.values() for _, row in each])
    return DatasetDict(
        {split: Dataset.from_list([make(*row) for row in each]) for split, each in rows.items()}
    )


@dataclass
class Documents:
    """Makes documents of rows.

    Args:
        prefix, scored: See `load`.
        words: The word for each label, which may be a template itself; empty if the labels are the words.
        label: Name of the field with the label; rows with candidates have the index of the right one in
            "answer" instead.
        ways: Number of candidates, the right one and others drawn by a hash of the row; None for all labels.
    """

    prefix: str
    scored: str
    words: Mapping[str, str] = field(default_factory=dict)
    label: str = "label"
    ways: int | None = None
    labels: list[str] = field(default_factory=list)

    def learn_labels(self, rows: Sequence[Row]) -> None:
        """Takes the labels that rows have, unless there are words for them."""
        self.labels = list(self.words) or sorted({str(row[self.label]) for row in rows if self.label in row})

    def __call__(self, where: str, row: Row) -> dict[str, Any]:
        """The document of a row.

        Args:
            where: File and line, for the error.
        """
        try:
            fields = _fields(row)
            labels = list(row["candidates"]) if "candidates" in row else self.labels
            right = labels[row["answer"]] if "answer" in row else str(row[self.label])
            if self.ways is not None:
                labels = _few(labels, right, self.ways, json.dumps(row, ensure_ascii=False, sort_keys=True))
            words = [self.words[each].format(**fields) if self.words else each for each in labels]
            named = [{**fields, "label": word} for word in words]
            return {
                "contexts": [self.prefix.format(**each) for each in named],
                "continuations": [self.scored.format(**each) for each in named],
                "gold": labels.index(right),
            }
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise ValueError(f"{where}: not a row of this set, {type(error).__name__}: {error}") from error


def _fields(row: Row) -> dict[str, Any]:
    """The row's own fields, and those that some sets need besides."""
    fields = {key: "，".join(value) if key == "keyword" else value for key, value in row.items()}
    if "content" in row and "candidates" in row:
        fields["before"], _, fields["after"] = row["content"].partition("#idiom#")
    if "target" in row:
        target, text = row["target"], row["text"]
        place, pronoun = target["span2_index"], target["span2_text"]
        if not text.startswith(pronoun, place):
            raise ValueError(f"no {pronoun} at {place} of its text")
        fields |= {"name": target["span1_text"], "pronoun": pronoun}
        fields |= {"before": text[:place], "after": text[place + len(pronoun) :]}
    return fields


def _few(labels: list[str], right: str, ways: int, key: str) -> list[str]:
    """The right label and others; which ones, and in which order, is a function of the row alone."""

    def rank(label: str) -> bytes:
        return hashlib.sha256(f"{key}\x1f{label}".encode("utf-8", "surrogatepass")).digest()

    others = sorted((label for label in labels if label != right), key=rank)[: ways - 1]
    return sorted([right, *others], key=lambda label: rank(label)[::-1])


def _find(data: str | None, folder: str) -> Path:
    if not data:
        raise ValueError(
            f'no folder of FewCLUE\'s files: name it in {DATA}, or by --metadata \'{{"data": "DIR"}}\''
        )
    name = f"{folder}/{_SPLITS['test']}"
    found = sorted(Path(data).rglob(name))
    if not found:
        raise ValueError(f"{shown(data)}: has no {name}, at any depth")
    return found[0].parent


def _rows(path: Path) -> list[tuple[str, Row]]:
    """The rows of a file, each with the words that say where it is."""
    lines = [(number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    rows = [(f"{shown(path)}, line {number}", parse_json(line, path, line=number)) for number, line in lines]
    for where, row in rows:
        if not isinstance(row, Mapping):
            raise ValueError(f"{where}: not a JSON object")
    return rows
