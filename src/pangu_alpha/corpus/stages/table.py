"""The table of stages: what each depends on, and the items that it consists of."""

from __future__ import annotations

import importlib.metadata
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pangu_alpha.corpus.engine import Work, store
from pangu_alpha.corpus.stages import models, near, texts
from pangu_alpha.corpus.stages.exact import exact_steps
from pangu_alpha.corpus.stages.final import Counting, Writing, bound_of, count_tokens, write_final
from pangu_alpha.corpus.stages.inputs import paths_of
from pangu_alpha.corpus.stages.removals import part_of_owner
from pangu_alpha.corpus.stages.run import Made, Run, Step, digest_of
from pangu_alpha.corpus.stages.scored import Scored, Searched, clean_of_sets, score_texts


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        needs: Stages whose results it reads; the digests of their folders are part of its own.
        settings: All else that its results depend on, apart from the inputs of its items.
        steps: Yields its steps; when one is yielded, the records of those before it can be read.
        code: Modules and packages of pangu_alpha whose source its results depend on.
        text: The stage whose texts its ledger begins with; "first" of the first one, empty without a ledger.
    """

    name: str
    needs: tuple[str, ...]
    settings: Callable[[Run], Any]
    steps: Callable[[Run, str], Iterator[Step]]
    code: tuple[str, ...]
    text: str = ""


def _versions(*packages: str) -> dict[str, str]:
    """Versions of what changes texts or keys, so that no stage mixes the results of two of them."""
    found = {"unicode": unicodedata.unidata_version}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def _extract(run: Run, folder: str) -> Iterator[Step]:
    yield [
        Work(
            item.number,
            item.source,
            folder,
            digest_of([[p.file, p.input.path, p.input.bytes, p.input.stamp, p.part] for p in item.pieces]),
            texts.extract,
            None,
            texts.Extracting(item.pieces, run.config.sources[item.source].reading),
        )
        for item in run.items
    ]


def _reading(run: Run) -> Any:
    settings = {name: each.reading for name, each in run.config.sources.items()}
    versions = _versions("resiliparse", "trafilatura", "lxml")
    return {"reading": settings, "item_bytes": run.config.item_bytes, "versions": versions}


def _ruled(function: Callable[..., None], before: str) -> Callable[[Run, str], Iterator[Step]]:
    """The steps of a stage that goes through the texts of another by the profile."""

    def steps(run: Run, folder: str) -> Iterator[Step]:
        works = []
        for item in run.items:
            made = run.made(before, item.number, "text")
            reads = texts.Ruled(made.path, run.profile, run.config.kind_of(item.source))
            works.append(
                Work(item.number, item.source, folder, digest_of(made, reads.kind), function, None, reads)
            )
        yield works

    return steps


def _profile(run: Run) -> Any:
    kinds = {name: run.config.kind_of(name) for name in run.config.sources}
    return {"profile": run.profile, "kinds": kinds, "lists": run.profile.context().digests}


def _exact(run: Run, folder: str) -> Iterator[Step]:
    return exact_steps(run, folder, "filter")


def home_of(run: Run, stage: str, owner: int) -> Made:
    """The file with the removals of a stage of duplicates that an item's owner has."""
    partitions = run.partitions
    return run.made(stage, part_of_owner(owner, partitions), "removals", partitions)


def _sign(run: Run, folder: str) -> Iterator[Step]:
    works = []
    for item in run.items:
        made = run.made("quality", item.number, "text")
        settings = run.config.near_duplicates
        works.append(Work(item.number, item.source, folder, digest_of(made), near.sign, settings, made.path))
    yield works


def _quality(run: Run, folder: str) -> Iterator[Step]:
    settings = run.config.quality
    names = models.trained(settings)
    given = {"spam": settings.spam, "quality": settings.quality, "perplexity": None}
    made: list[Made] = []
    for name in ("spam", "quality", "perplexity"):
        if name in names:
            made.append(run.made("models", names.index(name), f"{name}.npz", len(names)))
        else:
            path = given[name]
            made.append(Made(path, store.sha256(path)) if path else Made("", ""))
    works = []
    for item in run.items:
        text, home = run.made("filter", item.number, "text"), home_of(run, "exact", item.owner)
        scored = run.config.filtered_by_models(item.source)
        spam, good, perplexity = (each.path or None if scored else None for each in made)
        paths = (spam, good, perplexity)
        reads = Scored(text.path, home.path, item.owner, paths, run.config.seed)
        digest = digest_of(text, home, item.owner, made if scored else [])
        works.append(Work(item.number, item.source, folder, digest, score_texts, settings, reads))
    yield works


def _quality_settings(run: Run) -> Any:
    sources = {name: run.config.filtered_by_models(name) for name in run.config.sources}
    return {"quality": run.config.quality, "seed": run.config.seed, "sources": sources}


def _decontaminate(run: Run, folder: str) -> Iterator[Step]:
    sets = run.config.evaluation_sets
    index: Made | None = None
    if sets:
        paths = [(name, tuple(paths_of(each.inputs))) for name, each in sorted(sets.items())]
        digest = digest_of([[name, *found, *map(store.sha256, found)] for name, found in paths])
        yield [Work(0, "", f"{folder}/index", digest, models.build_index, run.config.contamination, paths)]
        index = run.made("decontaminate/index", 0, "index.npz", 1)
    works = []
    for item in run.items:
        made, home = run.made("quality", item.number, "text"), home_of(run, "components", item.owner)
        reads = Searched(made.path, home.path, item.owner, index.path if index else None)
        digest = digest_of(made, home, item.owner, [index] if index else [])
        works.append(
            Work(item.number, item.source, folder, digest, clean_of_sets, run.config.contamination, reads)
        )
    yield works


def _sets(run: Run) -> Any:
    return {"sets": run.config.evaluation_sets, "contamination": run.config.contamination}


def _mix(run: Run, folder: str) -> Iterator[Step]:
    counting = Counting(run.config.vocabulary, run.config.seed)
    works = []
    for item in run.items:
        made = run.made("decontaminate", item.number, "text")
        works.append(
            Work(item.number, item.source, folder, digest_of(made), count_tokens, counting, made.path)
        )
    yield works


def _write(run: Run, folder: str) -> Iterator[Step]:
    bounds = {}
    for name, source in run.config.sources.items():
        mine = [each for each in run.records("mix") if each["source"] == name]
        bounds[name] = bound_of(mine, source.tokens)
    works = []
    for item in run.items:
        made = run.made("decontaminate", item.number, "text")
        near_home, exact_home = (home_of(run, each, item.owner) for each in ("components", "exact"))
        bound, seed = bounds[item.source], run.config.seed
        final = store.join(run.config.output, item.source, f"part-{item.number:05d}.parquet")
        reads = Writing(made.path, near_home.path, exact_home.path, item.owner, bound, seed, final)
        digest = digest_of(made, near_home, exact_home, item.owner, bound, seed)
        works.append(Work(item.number, item.source, folder, digest, write_final, None, reads))
    for name in run.config.sources:
        store.make_folder(store.join(run.config.output, name))
    yield works


def _partitions(run: Run) -> Any:
    return {"partitions": run.partitions, "versions": _versions()}


def _near(run: Run) -> Any:
    return {"near_duplicates": run.config.near_duplicates, "versions": _versions()}


def _budgets(run: Run) -> Any:
    return {
        "tokens": {name: each.tokens for name, each in run.config.sources.items()},
        "seed": run.config.seed,
    }


def _vocabulary(run: Run) -> Any:
    path = run.config.vocabulary
    return {"vocabulary": path and store.sha256(path), "seed": run.config.seed}


_TEXTS = "corpus.stages.texts"
_MODELS = ("corpus.quality", "corpus.folding", "corpus.hashing", "corpus.stages.models", "text.ngrams")
_RULES = ("corpus.rules", _TEXTS, "text.characters", "text.documents")
_FINAL = ("corpus.stages.final", "corpus.hashing", _TEXTS)
_NEAR = (
    "corpus.duplicates",
    "corpus.folding",
    "corpus.hashing",
    "corpus.stages.near",
    "corpus.stages.exact",
    "corpus.stages.removals",
    "corpus.engine.shuffle",
)
STAGES: tuple[Stage, ...] = (
    Stage("extract", (), _reading, _extract,
          ("corpus.reading", _TEXTS, "text.documents"), "first"),
    Stage("normalise", ("extract",), lambda run: {**_profile(run), "versions": _versions("opencc")},
          _ruled(texts.normalise_texts, "extract"), _RULES, "extract"),
    Stage("filter", ("normalise",), lambda run: {**_profile(run), "versions": _versions("pyahocorasick")},
          _ruled(texts.filter_texts, "normalise"), _RULES, "normalise"),
    Stage("exact", ("filter",), _partitions, _exact, _NEAR),
    Stage("models", ("extract", "filter"), _quality_settings, models.model_steps, _MODELS),
    Stage("quality", ("filter", "exact", "models"), _quality_settings, _quality,
          (*_MODELS, "corpus.stages.scored", "corpus.stages.removals", _TEXTS), "filter"),
    Stage("sign", ("quality",), _near, _sign,
          ("corpus.duplicates", "corpus.folding", "corpus.hashing", "corpus.stages.near")),
    Stage("edges", ("sign",), lambda run: {**_near(run), **_partitions(run)}, near.edges_step, _NEAR),
    Stage("components", ("exact", "quality", "edges"),
          lambda run: {**_near(run), **_partitions(run)}, near.component_steps, _NEAR),
    Stage("decontaminate", ("quality", "components"), _sets, _decontaminate,
          (*_MODELS, "corpus.stages.scored", "corpus.stages.removals", _TEXTS), "quality"),
    Stage("mix", ("decontaminate",), _vocabulary, _mix, (*_FINAL, "text.tokenizer", "text.segment")),
    Stage("write", ("decontaminate", "components", "exact", "mix"),
          _budgets,
          _write, (*_FINAL, "corpus.stages.removals"), "decontaminate"),
)  # fmt: skip
