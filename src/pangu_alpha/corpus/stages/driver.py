"""Runs the stages of a corpus in order, resumes what an earlier start has left, and checks the ledger.

What is done is known from the files alone: a run may begin on one engine and end on another.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.abc import Traversable
from pathlib import Path
from typing import Any

import pangu_alpha
from pangu_alpha.config.corpus import CorpusConfig
from pangu_alpha.config.schema import nearest, to_mapping
from pangu_alpha.corpus.engine import Engine, Ledger, LedgerError, Work, add_up, is_done, store
from pangu_alpha.corpus.rules import profile
from pangu_alpha.corpus.stages.inputs import items_of, list_inputs, owners_of
from pangu_alpha.corpus.stages.run import Exchanged, Made, Run, Step
from pangu_alpha.corpus.stages.table import STAGES, Stage
from pangu_alpha.files.shown import shown
from pangu_alpha.files.writing import json_text
from pangu_alpha.processes.workers import Advance

# Called with the name of a stage, the number of its items and of those that are done; returns what is called
# with the number of further items that are.
Progress = Callable[[str, int, int], Advance]
Note = Callable[[str], None]
RESULT = "corpus.json"
STAGE = "stage.json"
SETTINGS = "settings.json"
WRITER = "writer"  # names the folder of the stage `write` that the final files belong to
_FOLDER = "stages"
_MOST_KEYS = 5  # named in one line
_DIGITS = 12  # of a digest in a folder's name


def build_corpus(
    config: CorpusConfig, engine: Engine, progress: Progress, note: Note, until: str | None = None
) -> Run:
    """Runs all stages, or those up to and including one.

    Args:
        note: Called with sentences for the user.
        until: Name of the last stage to run.

    Raises:
        ValueError: An input has changed since an earlier start, a file of it is damaged, a worker was killed,
            or `until` is no stage.
        LedgerError: Counts that must be equal are not.
        OSError: A file cannot be read or written.
    """
    names = [stage.name for stage in STAGES]
    if until is not None and until not in names:
        raise ValueError(f"--until: {until!r} is no stage; {nearest(until, names)}")
    run = prepared(config)
    for stage in STAGES:
        _run_stage(run, stage, engine, progress, note)
        if stage.name == until:
            return run
    _publish(run)
    return run


def prepared(config: CorpusConfig) -> Run:
    """Lists the inputs and cuts them into items."""
    if not store.is_remote(config.output):  # executors have working folders of their own
        config = dataclasses.replace(config, output=os.path.abspath(config.output))
    store.make_folder(config.output)
    inputs = list_inputs(config)
    items = items_of(inputs, config.item_bytes)
    content = owners_of(config, inputs, items)
    digest = hashlib.sha256(content).hexdigest()
    path = store.join(config.output, _FOLDER, f"owners-{digest[:_DIGITS]}.npy")
    if store.size(path) != len(content):
        store.write_bytes(path, content)
    return Run(config, profile(config.profile), items, Made(path, digest))


def stage_settings(run: Run, stage: Stage) -> dict[str, Any]:
    """All that a stage's results depend on besides its inputs, as plain values."""
    return {
        "stage": stage.name,
        "settings": to_mapping(stage.settings(run)),
        "code": code_digest(stage.code),
        "after": {name: Path(run.folders[name]).name for name in stage.needs},
    }


def stage_digest(run: Run, stage: Stage) -> str:
    """A digest of `stage_settings`, which the stage's folder is named after."""
    text = json.dumps(stage_settings(run, stage), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def code_digest(modules: Sequence[str]) -> str:
    """A digest of the source of modules and packages below `pangu_alpha`, also in an archive."""
    digest = hashlib.sha256(pangu_alpha.__version__.encode())
    for name in modules:
        *folders, last = name.split(".")
        parent = importlib.resources.files("pangu_alpha").joinpath(*folders)
        package = parent.joinpath(last)
        for each in _sources(package if package.is_dir() else parent.joinpath(f"{last}.py")):
            digest.update(each.read_bytes())
    return digest.hexdigest()[:_DIGITS]


def _sources(file: Traversable) -> Iterator[Traversable]:
    if file.is_dir():
        for each in sorted(file.iterdir(), key=lambda each: each.name):
            yield from _sources(each)
    elif file.name.endswith((".py", ".yaml", ".tsv", ".txt")):
        yield file


def _run_stage(run: Run, stage: Stage, engine: Engine, progress: Progress, note: Note) -> None:
    digest = stage_digest(run, stage)
    folder = store.join(run.config.output, _FOLDER, f"{stage.name}-{digest[:_DIGITS]}")
    settings = stage_settings(run, stage)
    if store.size(store.join(folder, SETTINGS)) is None:
        for line in _what_changed(run, stage.name, settings):
            note(line)
        store.write_bytes(store.join(folder, SETTINGS), (json_text(settings) + "\n").encode())
    run.folders[stage.name] = folder
    for step in stage.steps(run, folder):
        if stage.name == "write":
            assert not isinstance(step, Exchanged)
            _before_writing(run, folder, step)
        _run_step(step, stage.name, engine, progress)
    ledger = _checked(run, stage)
    record = {"stage": stage.name, "digest": digest, "items": len(run.items), "ledger": _plain(ledger)}
    store.write_bytes(store.join(folder, STAGE), (json_text(record) + "\n").encode())


def _run_step(step: Step, name: str, engine: Engine, progress: Progress) -> None:
    works = step.parts if isinstance(step, Exchanged) else step
    done = [each for each in works if is_done(each)]
    known = {each.number for each in done}
    left = [each for each in works if each.number not in known]
    if not works:
        return
    advance = progress(name, len(works), 0)
    engine.verify(done, advance)
    if left and isinstance(step, Exchanged):
        engine.exchange(step.items, left, advance)
    elif left:
        engine.run(left, advance)


def _what_changed(run: Run, name: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Says which settings differ from those of the stage's latest folder, so that it is run again."""
    folder = store.join(run.config.output, _FOLDER)
    for each in store.names(folder):
        path = store.join(folder, each, SETTINGS)
        if each.rpartition("-")[0] == name and store.size(path) is not None:
            before = dict(_leaves(json.loads(store.read_bytes(path)), ""))
            now = dict(_leaves(settings, ""))
            keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            more = f" and {len(keys) - _MOST_KEYS} more" if len(keys) > _MOST_KEYS else ""
            yield f"{name}: runs again, since {', '.join(keys[:_MOST_KEYS])}{more} changed since {each}"


def _leaves(values: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _leaves(value, f"{where}.{key}" if where else key)
    else:
        yield where, values


def _checked(run: Run, stage: Stage) -> dict[str, Ledger]:
    """Adds up the ledgers of a stage's items, and compares them with those of the stage before.

    Raises:
        LedgerError: A count is off.
    """
    if not stage.text:
        return {}
    total = add_up(record["ledger"] for record in run.records(stage.name))
    for source, ledger in total.items():
        for fault in ledger.faults():
            raise LedgerError(f"{stage.name}, {source}: the ledger does not balance: {fault}")
    if stage.text == "first":
        return total
    before = add_up(record["ledger"] for record in run.records(stage.text))
    for source in before.keys() | total.keys():
        came, went = total.get(source, Ledger()).read, before.get(source, Ledger()).out
        if came != went:
            raise LedgerError(f"{stage.name}, {source}: {came} came in, but {went} left {stage.text}")
    for record in run.records(stage.name):
        _require_rows(stage, record)
    return total


def _require_rows(stage: Stage, record: Mapping[str, Any]) -> None:
    out = sum(each["out"]["documents"] for each in record["ledger"].values())
    rows = record["files"]["final" if stage.name == "write" else "text"]["rows"]
    if out != rows:
        raise LedgerError(f"{stage.name}, item {record['number']}: {out} documents out, but {rows} rows")


def _plain(ledger: Mapping[str, Ledger]) -> dict[str, Any]:
    return {source: each.plain() for source, each in ledger.items()}


def _before_writing(run: Run, folder: str, works: Sequence[Work]) -> None:
    """Before final files are replaced, nothing shall vouch for them any longer.

    The final files of all settings have the same names, so those that other settings have written since, or
    have begun to write, are not those that this folder's records describe.
    """
    path = store.join(run.config.output, _FOLDER, WRITER)
    writer = Path(folder).name
    before = store.read_bytes(path).decode() if store.size(path) is not None else writer
    if before != writer:
        for work in works:
            store.remove(work.record_path)
    if before != writer or not all(map(is_done, works)):
        store.remove(store.join(run.config.output, RESULT))
    store.write_bytes(path, writer.encode())


def _publish(run: Run) -> None:
    """Writes what the corpus consists of; removes final files of items that are no more."""
    ledgers = {
        stage.name: _plain(add_up(record["ledger"] for record in run.records(stage.name)))
        for stage in STAGES
        if stage.text
    }
    files = {}
    for record in run.records("write"):
        file = record["files"]["final"]
        files[f"{record['source']}/part-{record['number']:05d}.parquet"] = {
            key: file[key] for key in ("rows", "bytes", "sha256")
        }
    result = {
        "stages": {name: Path(folder).name for name, folder in run.folders.items()},
        "config": to_mapping(run.config),
        "ledger": ledgers,
        "files": files,
    }
    path = store.join(run.config.output, RESULT)
    text = (json_text(result) + "\n").encode()
    if store.size(path) is None or store.read_bytes(path) != text:
        _remove_others(run, files)
        store.write_bytes(path, text)


def _remove_others(run: Run, files: Mapping[str, Any]) -> None:
    for source in run.config.sources:
        folder = store.join(run.config.output, source)
        for name in store.names(folder):
            ours = name.startswith("part-") and name.endswith(".parquet")
            if ours and f"{source}/{name}" not in files:
                store.remove(store.join(folder, name))


def result_of(folder: str) -> dict[str, Any]:
    """What a finished run says of itself.

    Raises:
        ValueError: The folder holds no finished run.
    """
    path = store.join(folder, RESULT)
    if store.size(path) is None:
        raise ValueError(
            f"{shown(folder)}: holds no finished corpus ({RESULT} is missing); run it to its end"
        )
    found: dict[str, Any] = json.loads(store.read_bytes(path))
    return found
