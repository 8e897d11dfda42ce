"""The files of a finished run, by stage; reads them, and changes none."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pangu_alpha.config.schema import build
from pangu_alpha.corpus.engine import batches, file_path, read_record, store
from pangu_alpha.corpus.rules import Context, Profile
from pangu_alpha.corpus.stages import result_of


class FinishedRun:
    """A finished run.

    Args:
        folder: Its output folder.

    Raises:
        ValueError: The folder holds no finished run, or one of another release.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        result = result_of(folder)
        self.ledger: Mapping[str, Mapping[str, Any]] = result["ledger"]
        self.sources: tuple[str, ...] = tuple(result["config"]["sources"])
        self._stages: Mapping[str, str] = result["stages"]
        settings = self._settings("filter")
        self.profile_name: str = result["config"]["profile"]
        # as it was when the run was made, whatever has become of its file
        self.profile: Profile = build(Profile, settings["profile"])
        self.kinds: Mapping[str, str] = settings["kinds"]

    def _settings(self, stage: str) -> dict[str, Any]:
        text = store.read_bytes(store.join(self.path_of(stage), "settings.json"))
        found: dict[str, Any] = json.loads(text)["settings"]
        return found

    def path_of(self, stage: str) -> str:
        """The folder of a stage."""
        return store.join(self.folder, "stages", self._stages[stage])

    @functools.cached_property
    def context(self) -> Context | None:
        """Word lists of the profile; None if a list is not what it was, or cannot be read."""
        try:
            found = self.profile.context()
        except (OSError, ValueError):
            return None
        return found if found.digests == self._settings("filter").get("lists") else None

    def files(self, stage: str, name: str) -> Iterator[tuple[str, str]]:
        """Yields the source and the path of each file of a stage by this name, in the order of its items."""
        folder, number = self.path_of(stage), 0
        while (record := read_record(folder, number)) is not None:
            if name in record["files"]:
                yield record["source"], file_path(folder, record, name)
            number += 1

    def tables(
        self, stage: str, name: str, columns: list[str] | None = None
    ) -> Iterator[tuple[str, pa.Table]]:
        """Yields the source and the rows of the files of a stage, block by block."""
        for source, path in self.files(stage, name):
            for table in batches(path, columns):
                yield source, table

    def rows(self, stage: str, name: str, ids: Sequence[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the source and the row of each of these documents that a stage has; reads no others."""
        wanted = pa.array(sorted(set(ids)), pa.int64())
        if not len(wanted):
            return
        for source, path in self.files(stage, name):
            stream = store.open_input(path) if store.is_remote(path) else pa.OSFile(path)
            with stream, pq.ParquetFile(stream) as file:
                for group in _groups_with(file, wanted):
                    table = file.read_row_group(group)
                    for row in table.filter(pc.is_in(table["id"], wanted)).to_pylist():
                        yield source, row

    @functools.cached_property
    def inputs(self) -> list[dict[str, Any]]:
        """The input files, by their numbers."""
        content = store.read_bytes(store.join(self.folder, "inputs.parquet"))
        found: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
        return found


def _groups_with(file: pq.ParquetFile, ids: pa.Array) -> Iterator[int]:
    """Row groups that may have one of some sorted ids."""
    column = file.schema_arrow.names.index("id")
    for group in range(file.num_row_groups):
        bounds = file.metadata.row_group(group).column(column).statistics
        inside = bounds is None or not bounds.has_min_max
        if not inside:
            inside = pc.any(
                pc.and_(pc.greater_equal(ids, bounds.min), pc.less_equal(ids, bounds.max))
            ).as_py()
        if inside:
            yield group
