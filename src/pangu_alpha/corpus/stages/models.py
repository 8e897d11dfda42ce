"""Models and the index of evaluation sets: made once, by one item each, then loaded by every worker."""

from __future__ import annotations

import functools
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pangu_alpha.config.corpus import TRAIN, CorpusConfig, QualityConfig
from pangu_alpha.corpus import quality
from pangu_alpha.corpus.engine import Part, Work, batches, store
from pangu_alpha.corpus.hashing import drawn
from pangu_alpha.corpus.stages.run import Made, Run, Step, digest_of
from pangu_alpha.files.shown import shown

GOOD_KINDS = ("encyclopedia", "books", "news")  # examples of good text
_NAMES = ("spam", "quality", "perplexity")


@dataclass(frozen=True)
class Samples:
    """What a model is trained on: files of pages with their boilerplate, or of good and of raw texts."""

    pages: tuple[tuple[str, str], ...] = ()
    good: tuple[str, ...] = ()
    raw: tuple[str, ...] = ()


def trained(config: QualityConfig) -> list[str]:
    """Names of the models that a run trains."""
    wanted = {"spam": config.spam == TRAIN, "quality": config.quality == TRAIN}
    wanted["perplexity"] = config.perplexity_above is not None
    return [name for name in _NAMES if wanted[name]]


def model_steps(run: Run, folder: str) -> Iterator[Step]:
    """The steps of the stage `models`: one item for each model that is trained."""
    works = []
    for number, name in enumerate(trained(run.config.quality)):
        samples, made = _samples(run, name)
        digest = digest_of(name, made)
        works.append(
            Work(number, "", folder, digest, _TRAIN[name], (run.config.quality, run.config.seed), samples)
        )
    yield works


def _samples(run: Run, name: str) -> tuple[Samples, list[Made]]:
    if name == "spam":
        items = _some_items(run, lambda source: run.config.filtered_by_models(source), "extract")
        texts = [run.made("extract", number, "text") for number in items]
        cut = [run.made("extract", number, "boilerplate") for number in items]
        pairs = tuple((one.path, other.path) for one, other in zip(texts, cut, strict=True))
        return Samples(pages=pairs), texts + cut
    good = [run.made("filter", n, "text") for n in _some_items(run, _is_good(run.config), "filter")]
    raw = []
    if name == "quality":
        items = _some_items(run, lambda source: run.config.filtered_by_models(source), "filter")
        raw = [run.made("filter", number, "text") for number in items]
    return Samples(good=tuple(x.path for x in good), raw=tuple(x.path for x in raw)), good + raw


def _is_good(config: CorpusConfig) -> Callable[[str], bool]:
    return lambda source: config.kind_of(source) in GOOD_KINDS


def _some_items(run: Run, chosen: Callable[[str], bool], stage: str) -> list[int]:
    """Items of sources, in an order drawn by the seed, until they have enough documents."""
    numbers = [item.number for item in run.items if chosen(item.source)]
    draws = drawn(np.array(numbers, np.uint64), run.config.seed)
    order: list[int] = np.argsort(draws, kind="stable").tolist()
    found, documents = [], 0
    for place in order:
        if documents >= run.config.quality.samples:
            break
        found.append(numbers[place])
        documents += run.records(stage)[numbers[place]]["files"]["text"]["rows"]
    return sorted(found)


def _first(texts: Iterator[Any], most: int) -> list[Any]:
    return [text for _, text in zip(range(most), texts, strict=False)]


def _texts(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        for table in batches(path, ["text"]):
            yield from table["text"].to_pylist()


def _pages(pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    for texts, cut in pairs:
        for table, other in zip(batches(texts, ["url", "text"]), batches(cut, ["boilerplate"]), strict=True):
            columns = (table["url"], table["text"], other["boilerplate"])
            yield from zip(*(each.to_pylist() for each in columns), strict=True)


def train_spam(work: Work, part: Part) -> None:
    """Trains the model of spam, and notes how it does on sites that are held out."""
    settings, seed = work.settings
    examples = quality.spam_examples(_first(_pages(work.reads.pages), settings.samples))
    if len(set(examples.spam)) < 2:
        raise ValueError(
            "quality.spam: there is nothing to train on: the extractor cut no boilerplate from these pages "
            "(only HTML has any); give the path of a model, or null"
        )
    outside = quality.held_out(examples.sites, settings.held_out, seed)
    inside = examples.part(~outside)
    if len(set(inside.spam)) < 2:
        outside[:] = False
        inside = examples
    model = quality.HashedModel.train(inside.texts, inside.spam)
    _save(model, part, "spam.npz")
    part.facts["examples"] = len(inside.texts)
    measured = examples.part(outside)
    if len(set(measured.spam)) == 2:
        scores = model.scores(measured.texts)
        part.facts["held_out"] = vars(quality.HeldOut.of(scores, measured.spam, settings.spam_above))


def train_quality(work: Work, part: Part) -> None:
    """Trains the model of quality: good sources against raw ones."""
    settings, _ = work.settings
    good = _first(_texts(work.reads.good), settings.samples)
    raw = _first(_texts(work.reads.raw), settings.samples)
    if not good or not raw:
        raise ValueError(
            "quality.quality: there is nothing to train on: it takes a source of the kind encyclopedia, "
            "books or news, and one of common_crawl; give the path of a model, or null"
        )
    _save(quality.HashedModel.train(good + raw, [True] * len(good) + [False] * len(raw)), part, "quality.npz")
    part.facts["examples"] = len(good) + len(raw)


def train_perplexity(work: Work, part: Part) -> None:
    """Counts the trigrams of good sources."""
    settings, _ = work.settings
    texts = _first(_texts(work.reads.good), settings.samples)
    if not texts:
        raise ValueError(
            "quality.perplexity_above: there is nothing to count: it takes a source of the kind "
            "encyclopedia, books or news; give one, or null"
        )
    _save(quality.TrigramModel.train(texts), part, "perplexity.npz")
    part.facts["examples"] = len(texts)


_TRAIN = {"spam": train_spam, "quality": train_quality, "perplexity": train_perplexity}


def _save(model: Any, part: Part, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, name)
        model.save(path)
        with open(path, "rb") as file:
            part.stream(name).write(file.read())


def loaded(kind: Any, path: str, *words: str) -> Any:
    """A model or an index, from a path of any store; held until three others have been loaded."""
    return _loaded(kind, path, store.size(path), *words)


@functools.lru_cache(maxsize=4)
def _loaded(kind: Any, path: str, size: int | None, *words: str) -> Any:
    if not store.is_remote(path):
        return _open(kind, path, words)
    with tempfile.TemporaryDirectory() as folder:
        near = os.path.join(folder, path.rpartition("/")[2])
        with open(near, "wb") as file:
            file.write(store.read_bytes(path))
        return _open(kind, near, words)


def _open(kind: Any, path: str, words: tuple[str, ...]) -> Any:
    fast: Any = quality.FastTextModel
    return fast(path, *words) if kind is fast else kind.load(path)


def scorer(path: str, label: str) -> Any:
    """The model of a path: a fastText .bin, or one of ours."""
    if path.endswith((".bin", ".ftz")):
        return loaded(quality.FastTextModel, path, label)
    return loaded(quality.HashedModel, path)


def build_index(work: Work, part: Part) -> None:
    """Builds the index of the evaluation sets; `reads` are (name, paths) of each."""
    items = [item for name, paths in work.reads for path in paths for item in _items(name, path)]
    _save(quality.ContaminationIndex.build(items, work.settings), part, "index.npz")
    part.facts["items"] = len({item[:2] for item in items})


def _items(name: str, path: str) -> Iterator[tuple[str, str, str]]:
    stream = io.TextIOWrapper(io.BytesIO(store.read_bytes(path)), "utf-8")
    for number, line in enumerate(stream, 1):
        try:
            found = list(_strings(json.loads(line))) if line.lstrip().startswith("{") else [line]
        except ValueError as error:
            raise ValueError(f"{shown(path)}, line {number}: {error}") from error
        for text in found:
            if text.strip():
                yield name, f"{path.rpartition('/')[2]}:{number}", text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)
