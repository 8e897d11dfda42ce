"""Near duplicates: signatures, edges between documents that share a band, components, and the copy kept."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pangu_alpha.config.corpus import SignatureSettings
from pangu_alpha.corpus import duplicates
from pangu_alpha.corpus.duplicates import Checksum
from pangu_alpha.corpus.engine import Exchange, Part, Work, batches
from pangu_alpha.corpus.stages.exact import FOUND, parts_of, removals_step
from pangu_alpha.corpus.stages.removals import (
    owners,
    part_of_owner,
    removals_of,
    rows_of_owner,
    sizes_of,
    with_owner,
)
from pangu_alpha.corpus.stages.run import Exchanged, Made, Run, Step, digest_of
from pangu_alpha.corpus.stages.texts import texts_of

IN_MEMORY = 50_000_000  # edges; up to here one worker finds the components of all
_MOST_ROUNDS = 100  # far beyond the logarithm of any number of documents
EDGES = pa.schema([("u", pa.int64()), ("v", pa.int64())])
LABELS = pa.schema([("owner", pa.int64()), ("id", pa.int64()), ("label", pa.int64())])


def sign(work: Work, part: Part) -> None:
    """Signs the texts of an item; `reads` is their path, and the settings are SignatureSettings."""
    width = 4 * work.settings.permutations
    writer = part.table("signatures", pa.schema([("id", pa.int64()), ("signature", pa.binary(width))]))
    for ids, texts in texts_of(work.reads):
        rows = duplicates.signatures(texts, work.settings)
        data = pa.py_buffer(np.ascontiguousarray(rows).tobytes())
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(ids), [None, data])
        writer.write_columns(ids, column)


def signed(path: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields ids and signatures, uint32 [documents, permutations], of an item."""
    for table in batches(path):
        content = b"".join(table["signature"].to_pylist())
        yield table["id"].to_numpy(), np.frombuffer(content, np.uint32).reshape(len(table), -1)


def bands(work: Work) -> Iterator[np.ndarray]:
    """Rows (band key, id) of an item; `reads` is the path of its signatures."""
    for ids, rows in signed(work.reads):
        keys = duplicates.band_keys(rows, work.settings.bands)
        yield np.column_stack([keys.reshape(-1), np.repeat(ids, keys.shape[1])])


def write_edges(work: Work, blocks: Iterator[np.ndarray], part: Part) -> None:
    """Joins the documents of a bucket to its first one."""
    _write_pairs(duplicates.star_edges(_pairs(blocks)), part)


def _pairs(blocks: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return ((block[:, 0], block[:, 1]) for block in blocks)


def _write_pairs(pairs: Iterator[tuple[np.ndarray, np.ndarray]], part: Part) -> None:
    writer = part.table("edges", EDGES)
    for u, v in pairs:
        writer.write_columns(u, v)
    part.facts["edges"] = writer.rows


def edges_of(path: str) -> Iterator[np.ndarray]:
    """Yields the edges of a file, int64 [edges, 2]."""
    for table in batches(path):
        yield np.column_stack([table["u"].to_numpy(), table["v"].to_numpy()])


def edges_step(run: Run, folder: str) -> Iterator[Step]:
    """The one step of the stage `edges`."""
    settings = run.config.near_duplicates
    exchange = Exchange(("key", "id"), run.partitions, bands)
    made = [run.made("sign", item.number, "signatures") for item in run.items]
    items = [
        Work(number, "", folder, digest_of(each), write_edges, settings, each.path)
        for number, each in enumerate(made)
    ]
    digest = digest_of([each.digest for each in items], exchange.partitions)
    yield Exchanged(items, parts_of(folder, digest, write_edges, exchange))


def both_ways(work: Work) -> Iterator[np.ndarray]:
    """Each edge of a file in both directions; `reads` is its path."""
    for rows in edges_of(work.reads):
        yield np.concatenate([rows, rows[:, ::-1]])


def as_they_are(work: Work) -> Iterator[np.ndarray]:
    """The edges of a file; `reads` is its path."""
    return edges_of(work.reads)


def by_label(work: Work) -> Iterator[np.ndarray]:
    """Rows (label, id) of a file of edges (id, label); `reads` is its path."""
    return (rows[:, ::-1] for rows in edges_of(work.reads))


def write_large_star(work: Work, blocks: Iterator[np.ndarray], part: Part) -> None:
    """Does the first half of a round, and notes the checksum of the edges that came in."""
    entering = Checksum()
    _write_pairs(duplicates.large_star(_pairs(blocks), entering), part)
    part.facts["entering"] = [entering.rows, str(entering.total)]


def write_small_star(work: Work, blocks: Iterator[np.ndarray], part: Part) -> None:
    """Does the second half of a round."""
    _write_pairs(duplicates.small_star(_pairs(blocks)), part)


def write_connected(work: Work, part: Part) -> None:
    """Finds the components of all edges at once; `reads` are the paths of their files."""
    rows = np.concatenate(
        [np.empty((0, 2), np.int64), *(rows for path in work.reads for rows in edges_of(path))]
    )
    u, v = duplicates.connected(np.ascontiguousarray(rows[:, 0]), np.ascontiguousarray(rows[:, 1]))
    _write_pairs(iter([(u, v)]), part)


def write_members(work: Work, blocks: Iterator[np.ndarray], part: Part) -> None:
    """Writes (id, label) of all documents of a part's components, the label's own among them."""
    pairs = duplicates.distinct((block[:, 0], block[:, 1]) for block in blocks)
    _write_pairs(duplicates.members((id, label) for label, id in pairs), part)


def labels_with_owners(work: Work) -> Iterator[np.ndarray]:
    """Rows (owner, id, label) of a file of (id, label); `reads` is (its path, path of the owners)."""
    path, files = work.reads
    return (with_owner(files, rows) for rows in edges_of(path))


def write_labels(work: Work, blocks: Iterator[np.ndarray], part: Part) -> None:
    """Writes the labels of a part's owners."""
    writer = part.table("labels", LABELS)
    for rows in blocks:
        writer.write_columns(*rows.T)


@dataclass(frozen=True)
class Labelled:
    """Files that `members_of_item` reads, and the owner of its item."""

    text: str
    labels: str
    exact: str
    owners: str
    owner: int


def members_of_item(work: Work) -> Iterator[np.ndarray]:
    """Rows (label, rank, id, copies, hashes) of an item's documents in components; `reads`: Labelled.

    The signatures that found them are too short to tell .7 from .8; only these documents are signed again.
    """
    reads: Labelled = work.reads
    tables = [*rows_of_owner(reads.labels, reads.owner)]
    if not tables:
        return
    table = pa.concat_tables(tables)
    known, label = table["id"].to_numpy(), table["label"].to_numpy()
    exact, ranks = removals_of(reads.exact, reads.owner), owners(reads.owners)[1]
    for ids, texts in texts_of(reads.text):
        mine = np.flatnonzero(np.isin(ids, known))
        ids = ids[mine]
        if len(ids):
            members = [texts[place] for place in mine.tolist()]
            rows = duplicates.signatures(members, work.settings, work.settings.check_hashes)
            labels = label[np.searchsorted(known, ids)]
            head = [labels, ranks[ids >> 32].astype(np.int64), ids, sizes_of(ids, exact)]
            yield np.column_stack([*head, _as_numbers(rows)])


def _as_numbers(rows: np.ndarray) -> np.ndarray:
    """Hashes, uint32 [documents, K], as int64 [documents, K / 2], filled up with a zero if K is odd."""
    even = np.zeros((len(rows), rows.shape[1] + rows.shape[1] % 2), np.uint32)
    even[:, : rows.shape[1]] = rows
    return even.view(np.int64)


def write_near(work: Work, blocks: Iterator[np.ndarray], part: Part) -> None:
    """Writes the removals of a part's components."""
    settings: SignatureSettings = work.settings
    writer = part.table("found", FOUND)

    def columns() -> Iterator[Any]:
        for block in blocks:
            words = np.ascontiguousarray(block[:, 4:]).view(np.uint32)
            yield *block[:, :4].T, words[:, : settings.check_hashes]

    for rows in duplicates.near_removals(columns(), settings.threshold):
        writer.write_columns(*rows)


def component_steps(run: Run, folder: str) -> Iterator[Step]:
    """The steps of the stage `components`: components, labels of their members, the copies kept, removals."""
    partitions = run.partitions
    edges = [run.made("edges", number, "edges", partitions) for number in range(partitions)]
    if sum(int(each["facts"]["edges"]) for each in run.records("edges", partitions)) <= IN_MEMORY:
        digest = digest_of(edges)
        paths = tuple(each.path for each in edges)
        yield [Work(0, "", f"{folder}/connected", digest, write_connected, None, paths)]
        found = [run.made("components/connected", 0, "edges", 1)]
    else:
        found = yield from _rounds(run, folder, edges)
    exchange = Exchange(("label", "id"), partitions, by_label)
    yield _pass_on(f"{folder}/members", found, write_members, exchange)
    members = [run.made("components/members", number, "edges", partitions) for number in range(partitions)]
    exchange = Exchange(("owner", "id", "label"), partitions, labels_with_owners, mixed=False)
    yield _pass_on(f"{folder}/labels", members, write_labels, exchange, run.owners)
    yield _groups_step(run, folder)
    yield removals_step(run, folder, "components/found")


def _rounds(run: Run, folder: str, edges: list[Made]) -> Generator[Step, None, list[Made]]:
    """Large and small stars in turn until nothing changes; returns the files of the last edges."""
    partitions = run.partitions
    before: Checksum | None = None
    for number in range(_MOST_ROUNDS):
        large, small = f"large-{number:02d}", f"small-{number:02d}"
        exchange = Exchange(("u", "v"), partitions, both_ways)
        yield _pass_on(f"{folder}/{large}", edges, write_large_star, exchange)
        facts = [each["facts"]["entering"] for each in run.records(f"components/{large}", partitions)]
        entering = sum((Checksum(rows, int(total)) for rows, total in facts), Checksum())
        if entering == before:
            return edges  # what `yield from` gives
        before = entering
        halves = [run.made(f"components/{large}", n, "edges", partitions) for n in range(partitions)]
        exchange = Exchange(("u", "v"), partitions, as_they_are)
        yield _pass_on(f"{folder}/{small}", halves, write_small_star, exchange)
        edges = [run.made(f"components/{small}", n, "edges", partitions) for n in range(partitions)]
    raise AssertionError(f"no end after {_MOST_ROUNDS} rounds")


def _pass_on(
    folder: str, made: list[Made], function: Any, exchange: Exchange, owners: Made | None = None
) -> Exchanged:
    items = [
        Work(
            number,
            "",
            folder,
            digest_of(each),
            function,
            None,
            (each.path, owners.path) if owners else each.path,
        )
        for number, each in enumerate(made)
    ]
    digest = digest_of(made, [owners] if owners else [], exchange.partitions)
    return Exchanged(items, parts_of(folder, digest, function, exchange))


def _groups_step(run: Run, folder: str) -> Exchanged:
    settings, partitions = run.config.near_duplicates, run.partitions
    width = (settings.check_hashes + 1) // 2
    exchange = Exchange(("label", "rank", "id"), partitions, members_of_item, others=1 + width)
    items = []
    for item in run.items:
        home = part_of_owner(item.owner, partitions)
        text = run.made("quality", item.number, "text")
        labels = run.made("components/labels", home, "labels", partitions)
        exact = run.made("exact", home, "removals", partitions)
        reads = Labelled(text.path, labels.path, exact.path, run.owners.path, item.owner)
        digest = digest_of(text, labels, exact, run.owners, item.owner)
        items.append(Work(item.number, "", f"{folder}/found", digest, write_near, settings, reads))
    digest = digest_of([each.digest for each in items], partitions)
    return Exchanged(items, parts_of(f"{folder}/found", digest, write_near, exchange, settings))
