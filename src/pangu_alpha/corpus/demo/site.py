"""Writes the demo: archives of real and planted pages, the answers, a profile, and a configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from pangu_alpha.corpus.demo.archive import archive, http_response, record
from pangu_alpha.corpus.demo.packages import fetch_package, package_pages, packages
from pangu_alpha.corpus.demo.planted import HOST, Planted, planted
from pangu_alpha.corpus.demo.prose import page, prose

_PROFILE = """\
base: pangu-alpha
words:
  sensitive: template # ten harmless words in the place of a list of yours
"""
_CONFIG = """\
# Written by `corpus.py demo`. `corpus.py run --config` with this file builds the corpus again.
sources:
  common_crawl:
    inputs: [{web}]
output: {output}
profile: {profile}
partitions: 8
"""


def write_demo(directory: str | Path, small: bool = False) -> Path:
    """Writes the demo's files into a folder.

    Args:
        small: Only planted pages, made by code: nothing is downloaded.

    Returns:
        The configuration for `corpus.py run`. Beside it lies answers.jsonl, which names every planted page
        with its kind and what must become of it.

    Raises:
        OSError: A package cannot be downloaded, or a file not written.
        ValueError: A package is not the one of the table.
    """
    directory = Path(directory).absolute()
    web = directory / "web"
    web.mkdir(parents=True, exist_ok=True)
    answers = []
    cases = list(planted(small))
    _write(web / "planted.warc.gz", archive((each.url, each.content) for each in cases))
    answers += [_answer(each) for each in cases]
    answers.append(_write_truncated(web / "truncated.warc.gz"))
    for name, package in {} if small else packages().items():
        pages = package_pages(package, fetch_package(package))
        _write(web / f"{name}.warc.gz", archive(_responses(name, pages)))
    _write_lines(directory / "answers.jsonl", answers)
    (directory / "profile.yaml").write_text(_PROFILE, "utf-8")
    config = directory / "corpus.yaml"
    quoted = {"web": web / "*.warc.gz", "output": directory / "corpus", "profile": directory / "profile.yaml"}
    config.write_text(_CONFIG.format(**{key: json.dumps(str(path)) for key, path in quoted.items()}), "utf-8")
    return config


def _responses(name: str, pages: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    for path, content in pages:
        yield f"http://{name}.example/{path}", http_response(content)


def _answer(case: Planted) -> dict[str, object]:
    return {"url": case.url, "kind": case.kind, "fates": list(case.fates)}


def _write_truncated(path: Path) -> dict[str, object]:
    """An archive whose last record is cut off, as by a broken transfer."""
    whole, cut = f"{HOST}/whole", f"{HOST}/cut"
    records = [record(url, http_response(page("一个标题", prose(seed, 500)).encode("utf-8"),
                                         content_type="text/html; charset=utf-8"))
               for seed, url in ((95, whole), (96, cut))]  # fmt: skip
    _write(path, records[0] + records[1][: len(records[1]) // 2])
    return {"url": cut, "kind": "cut record", "fates": ["broken_record"]}


def _write(path: Path, content: bytes) -> None:
    """Writes a file unless it is there already: a run that is continued refuses inputs that have changed."""
    if not path.is_file() or path.read_bytes() != content:
        path.write_bytes(content)


def _write_lines(path: Path, rows: Iterable[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
