"""What was computed of a plan so far: one JSON object an item, written as it goes.

A line that a kill cut off is dropped, and with it the lines of its group, so that a resumed evaluation
computes the same groups as one that was not interrupted. The files for readers are made of these at the end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pangu_alpha.evaluation.running.prompts import Prompt
from pangu_alpha.files.reading import ReadError, read_json_lines
from pangu_alpha.files.writing import json_text, write_text


def line_of(number: int, fields: Mapping[str, str], prompt: Prompt, result: dict[str, Any]) -> dict[str, Any]:
    """Makes the object of one item.

    Args:
        number: Place of the item in its file.
        fields: Its fields before anything was cut.
        result: What was measured.
    """
    item = prompt.item
    doc: dict[str, Any] = dict(fields)
    if item.choices:
        doc["choices"] = [next(iter(choice.values())) for choice in item.choices]
    if item.references:
        doc["references"] = list(item.references)
    return {
        "number": number,
        "id": item.id,
        "where": item.where,
        "doc": doc,
        "gold": item.gold,
        "group": item.group,
        "requests": [list(pair) for pair in prompt.texts],
        "shots": list(prompt.shots),
        "dropped_shots": prompt.dropped,
        "cut_characters": prompt.cut,
        **result,
    }


class SampleFile:
    """The items of one plan that are computed, or of a process's share of it.

    Args:
        path: The file; made by the first `append`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def resume(self, groups: Sequence[range]) -> int:
        """Keeps the whole groups at the beginning of the file, and drops what follows them.

        Args:
            groups: The numbers of the items that are written together, in order.

        Returns:
            Number of groups that are there.
        """
        if not self.path.exists():
            return 0
        lines = self.path.read_bytes().split(b"\n")[:-1]  # the last is a cut line, or empty
        done = taken = 0
        for group in groups:
            part = lines[taken : taken + len(group)]
            if [_number(line) for line in part] != list(group):
                break
            taken += len(group)
            done += 1
        size = sum(len(line) + 1 for line in lines[:taken])
        if size != self.path.stat().st_size:
            os.truncate(self.path, size)
        return done

    def append(self, samples: Sequence[dict[str, Any]]) -> None:
        """Writes the items of a group and flushes them to the disk."""
        text = "".join(json_text(sample, indent=None) + "\n" for sample in samples)
        with self.path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> Iterator[dict[str, Any]]:
        """Yields the items in order.

        Raises:
            ReadError: A line is damaged.
        """
        for number, value in read_json_lines(self.path):
            if isinstance(value, ReadError) or not isinstance(value, dict):
                raise ReadError(f"{self.path}, line {number}: damaged; remove the file, and evaluate again")
            yield value


def _number(line: bytes) -> int | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value.get("number") if isinstance(value, dict) else None


def join_shares(parts: Sequence[Path], path: Path) -> None:
    """Puts the shares of several processes together in the order of the items, and removes them."""
    samples = [sample for part in parts if part.exists() for sample in SampleFile(part).read()]
    samples.sort(key=lambda sample: sample["number"])
    write_text(path, "".join(json_text(sample, indent=None) + "\n" for sample in samples))
    for part in parts:
        part.unlink(missing_ok=True)
