"""The samples file of a task: one JSON object an item, in lm-evaluation-harness's form, written as it goes.

A line that a kill cut off is dropped, and with it the lines of its group, so that a resumed evaluation
computes the same groups as one that was not interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pangu_alpha.evaluation.running.prompts import Prompt
from pangu_alpha.files.reading import ReadError, read_json_lines
from pangu_alpha.files.writing import json_text, write_text


def sample_of(number: int, prompt: Prompt, result: dict[str, Any]) -> dict[str, Any]:
    """Makes the object of one item.

    Args:
        number: Place of the item in its file.
        result: What was measured; "resps" and "filtered_resps" are among it.
    """
    item = prompt.item
    arguments = {
        f"gen_args_{place}": {"arg_0": before, "arg_1": scored}
        for place, (before, scored) in enumerate(prompt.texts)
    }
    doc: dict[str, Any] = {"id": item.id, **item.fields}
    if item.choices:
        doc |= {"choices": [list(choice.values())[0] for choice in item.choices], "gold": item.gold}
    if item.references:
        doc["references"] = list(item.references)
    return {
        "doc_id": number,
        "doc": doc,
        "target": item.target,
        "arguments": arguments,
        **result,
        "filter": "none",
        "doc_hash": _digest(doc),
        "prompt_hash": _digest([before for before, _ in prompt.texts]),
        "target_hash": _digest(item.target),
        "group": _digest(item.group)[:16] if item.group else str(number),
        "shots": list(prompt.shots),
        "dropped_shots": prompt.dropped,
        "cut_characters": prompt.cut,
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json_text(value, indent=None).encode()).hexdigest()


class SampleFile:
    """The samples of one task, or a process's share of them.

    Args:
        path: The file; made if it does not exist.
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
        lines = self.path.read_bytes().split(b"\n")[
            :-1
        ]  # after the last line feed stands a cut line, or nothing
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
        """Writes the samples of a group and flushes them to the disk."""
        text = "".join(json_text(sample, indent=None) + "\n" for sample in samples)
        with self.path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> Iterator[dict[str, Any]]:
        """Yields the samples in order.

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
    return value.get("doc_id") if isinstance(value, dict) else None


def join_shares(parts: Sequence[Path], path: Path) -> None:
    """Puts the shares of several processes together in the order of the items, and removes them."""
    samples = [sample for part in parts if part.exists() for sample in SampleFile(part).read()]
    samples.sort(key=lambda sample: sample["doc_id"])
    write_text(path, "".join(json_text(sample, indent=None) + "\n" for sample in samples))
    for part in parts:
        part.unlink(missing_ok=True)
