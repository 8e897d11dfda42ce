"""From corpus files to a folder of records: token files, windows, MindRecord files, manifest.

The windows depend on the inputs, their order and the settings, never on the number of processes or on how
often the run was interrupted. Intermediate files lie in `unfinished/` until the manifest is written, about
2 bytes a token.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pangu_alpha.config.schema import ConfigError, to_mapping, validate
from pangu_alpha.data.manifest import (
    MANIFEST_NAME,
    InputFile,
    Manifest,
    Vocabulary,
    verify,
    write_json,
)
from pangu_alpha.data.packing import Cut, cut, token_dtype
from pangu_alpha.data.records import ShardJob, max_windows, remove_leftovers, shard_name, write_shard
from pangu_alpha.data.tokens import TokenJob, write_tokens
from pangu_alpha.data.workers import Advance, run_jobs
from pangu_alpha.text.clean import CleanRules
from pangu_alpha.text.documents import ReadOptions, file_kind
from pangu_alpha.text.tokenizer import PanguTokenizer

_UNFINISHED = "unfinished"
_SETTINGS = "settings.json"

# Hears of progress: (stage, unit of work, total units) -> what is called with each advance.
Progress = Callable[[str, str, int], Advance]


@dataclass(frozen=True)
class PreprocessConfig:
    """Everything that decides the records, and how many processes make them.

    Args:
        inputs: Corpus files; windows follow their order.
        tokenizer: Vocabulary file.
        output: Folder for the records; new, empty, or left by an interrupted run of the same settings.
        seq_length: S; a window has S + 1 ids.
        end_of_document: Name of the control piece after each document; a released model's is in its card.
        read: How files become documents.
        clean: What is taken out of them, duplicate lines within each input file included; None leaves
            documents as they are.
        pad_last: Fill up the last window with <pad> instead of leaving its ids out.
        windows_per_shard: Windows of one MindRecord file; None makes eight files of 60 to 500 MB, and of a
            smaller or larger corpus as many as that takes. MindSpore opens at most 4096 files, which is 500
            billion tokens at S = 1024.
        workers: Processes.

    Raises:
        ConfigError: All fields that have the wrong type or break a rule.
    """

    inputs: tuple[str, ...]
    tokenizer: str
    output: str
    seq_length: int
    end_of_document: str = "<eod>"
    read: ReadOptions = field(default_factory=ReadOptions)
    clean: CleanRules | None = field(default_factory=CleanRules)
    pad_last: bool = False
    windows_per_shard: int | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        validate(self)
        largest = max_windows(self.seq_length)
        if not largest:
            raise ConfigError([f"seq_length: {self.seq_length} ids do not fit in a page of MindRecord"])
        if (self.windows_per_shard or 0) > largest:
            asked = self.windows_per_shard
            raise ConfigError([f"windows_per_shard: {asked} do not fit in a MindRecord file, {largest} do"])

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        for name in ("seq_length", "windows_per_shard", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name}: {value} must be at least 1"
        if not self.inputs:
            yield "inputs: empty; name at least one corpus file"

    def settings(self, tokenizer_digest: str) -> dict[str, str]:
        """What decides the windows, flat and as text: equal settings and inputs make equal records."""
        fixed = {"tokenizer": tokenizer_digest, "inputs": json.dumps(self.inputs, ensure_ascii=False)}
        plain = ("seq_length", "end_of_document", "pad_last", "windows_per_shard")
        fixed |= {name: str(getattr(self, name)) for name in plain}
        fixed |= {f"read.{key}": str(value) for key, value in to_mapping(self.read).items()}
        clean = to_mapping(self.clean) or {"": None}
        return fixed | {f"clean.{key}".rstrip("."): str(value) for key, value in clean.items()}


def preprocess(config: PreprocessConfig, progress: Progress | None = None) -> Manifest:
    """Makes records, or completes them, or finds them complete.

    Args:
        config: What to make.
        progress: Hears of the two stages, tokenizing and writing.

    Returns:
        The manifest of the finished folder.

    Raises:
        ValueError: Bad input, or an output folder that holds something else. Files of others are never
            touched.
    """
    tokenizer = PanguTokenizer(config.tokenizer)
    vocabulary = _vocabulary(tokenizer, config.end_of_document)
    _check_inputs(config.inputs)
    settings = config.settings(tokenizer.digest)
    finished = _claim(Path(config.output), settings)
    if finished is not None:
        _check_unchanged(config.output, finished)
        _remove_intermediate(config.output, finished)
        return finished
    progress = progress or (lambda *_: lambda *__: None)
    jobs = _token_jobs(config, tokenizer.digest)
    inputs = _tokenize(jobs, config.workers, progress)
    plan = _plan(config, inputs)
    shard_jobs = _shard_jobs(config, jobs, vocabulary, plan)
    shards = run_jobs(write_shard, shard_jobs, config.workers, progress("writing", "window", plan.windows))
    manifest = Manifest(
        vocabulary=vocabulary,
        seq_length=config.seq_length,
        tokens=sum(file.tokens for file in inputs),
        documents=sum(file.documents for file in inputs),
        windows=plan.windows,
        remainder=plan.remainder,
        padding=plan.padding,
        inputs=tuple(inputs),
        shards=tuple(shards),
        settings=settings,
    )
    manifest.write(config.output)
    _remove_intermediate(config.output, manifest)
    return manifest


def _vocabulary(tokenizer: PanguTokenizer, end_of_document: str) -> Vocabulary:
    end = tokenizer.id_of(end_of_document)
    if end not in tokenizer.control_ids:
        raise ValueError(
            f"end_of_document: {end_of_document!r} may occur in text; use a control piece such as '<eod>'"
        )
    return Vocabulary(tokenizer.digest, tokenizer.vocab_size, end_of_document, end, tokenizer.pad_id)


def _check_inputs(inputs: Sequence[str]) -> None:
    """Every input exists, has a known ending and is named once; all faults at once."""
    faults = []
    seen: set[Path] = set()
    for name in inputs:
        path = Path(name)
        if not path.is_file():
            faults.append(f"{name}: " + ("a folder; name its files" if path.is_dir() else "no such file"))
            continue
        try:
            file_kind(path)
        except ValueError as error:
            faults.append(str(error))
        if path.resolve() in seen:
            faults.append(f"{name}: named twice; its text would be in the records twice")
        seen.add(path.resolve())
    if faults:
        raise ConfigError(f"inputs: {fault}" for fault in faults)


def _claim(output: Path, settings: dict[str, str]) -> Manifest | None:
    """Takes the folder for these settings; returns the manifest if they were completed in it before."""
    notes = output / _UNFINISHED / _SETTINGS
    manifest = Manifest.read(output) if (output / MANIFEST_NAME).exists() else None
    if manifest is None and not notes.is_file():
        if output.exists() and (not output.is_dir() or any(p.name != _UNFINISHED for p in output.iterdir())):
            raise ValueError(f"{output}: holds other files; give an --output that is new or empty")
        notes.parent.mkdir(parents=True, exist_ok=True)
        write_json(notes, settings)
        return None
    theirs = manifest.settings if manifest else json.loads(notes.read_text(encoding="utf-8"))
    changed = [key for key in {**theirs, **settings} if theirs.get(key) != settings.get(key)]
    if changed:
        differences = [f"{key}: {theirs.get(key)} there, {settings.get(key)} now" for key in changed]
        heading = f"{output}: holds records of other settings; give another --output. They differ in:"
        raise ValueError("\n  - ".join([heading, *differences]))
    return manifest


def _check_unchanged(output: str, manifest: Manifest) -> None:
    faults = verify(output, full=False)
    for file in manifest.inputs:
        now = os.stat(file.path)
        if (now.st_size, now.st_mtime_ns) != (file.bytes, file.modified_ns):
            faults.append(f"{file.path}: changed since these records were made")
    if faults:
        heading = f"{output}: complete, but out of date or damaged; give another --output:"
        raise ValueError("\n  - ".join([heading, *faults]))


def _token_jobs(config: PreprocessConfig, digest: str) -> list[TokenJob]:
    folder = Path(config.output) / _UNFINISHED
    return [
        TokenJob(
            source=source,
            target=folder / _token_name(place),
            vocab_file=config.tokenizer,
            tokenizer_digest=digest,
            end_of_document=config.end_of_document,
            read=config.read,
            clean=config.clean,
        )
        for place, source in enumerate(config.inputs)
    ]


def _tokenize(jobs: list[TokenJob], workers: int, progress: Progress) -> list[InputFile]:
    sizes = [os.path.getsize(job.source) for job in jobs]
    # The largest first, so that no process is left alone with it at the end.
    order = sorted(range(len(jobs)), key=lambda place: -sizes[place])
    advance = progress("tokenizing", "B", sum(sizes))
    done = run_jobs(write_tokens, [jobs[place] for place in order], workers, advance)
    return [file for _, file in sorted(zip(order, done, strict=True), key=lambda pair: pair[0])]


def _plan(config: PreprocessConfig, inputs: Sequence[InputFile]) -> Cut:
    tokens = sum(file.tokens for file in inputs)
    plan = cut(tokens, config.seq_length, config.pad_last)
    if plan.windows == 0:
        raise ValueError(
            f"the inputs hold {sum(file.documents for file in inputs)} documents, {tokens} tokens in all, "
            f"and a window takes {config.seq_length + 1}; add text, shorten --seq-length or use --pad-last"
        )
    return plan


def _shard_jobs(
    config: PreprocessConfig, jobs: Sequence[TokenJob], vocabulary: Vocabulary, plan: Cut
) -> list[ShardJob]:
    step = config.windows_per_shard or _windows_per_shard(plan.windows, config.seq_length)
    return [
        ShardJob(
            tokens=tuple(job.target for job in jobs),
            dtype=token_dtype(vocabulary.size).str,
            seq_length=config.seq_length,
            pad_id=vocabulary.pad_id,
            first=first,
            last=min(first + step, plan.windows),
            target=Path(config.output) / shard_name(first // step),
        )
        for first in range(0, plan.windows, step)
    ]


def _windows_per_shard(windows: int, seq_length: int) -> int:
    """Enough files for several processes to write at once, but no small ones; follows the corpus alone."""
    largest = max_windows(seq_length)
    return min(max(-(-windows // 8), largest // 8, 1), largest)


def _remove_intermediate(output: str, manifest: Manifest) -> None:
    """Removes what was made in `unfinished/`, by name, and the folder if nothing else is in it."""
    folder = Path(output) / _UNFINISHED
    if not folder.is_dir():
        return
    remove_leftovers(folder, manifest.shards)
    tokens = [_token_name(place) for place in range(len(manifest.inputs))]
    for name in (*tokens, *(f"{name}.json" for name in tokens), _SETTINGS):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _token_name(place: int) -> str:
    return f"{place:05d}.tokens"
