"""Makes a folder of records from corpus files: token files, windows, MindRecord files, and the manifest.

The windows depend on the inputs, their order and the settings, but not on the number of processes or on how
often the run was interrupted. Until the manifest is written, intermediate files lie in `unfinished/`; they
take about 2 bytes a token.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pangu_alpha.config.option import REQUIRED, option
from pangu_alpha.config.schema import ConfigError, to_mapping, validate
from pangu_alpha.data.manifest import (
    MANIFEST_NAME,
    InputFile,
    Manifest,
    Vocabulary,
    name_fault,
    recorded_name,
    verify,
)
from pangu_alpha.data.packing import Cut, cut, token_dtype
from pangu_alpha.data.records import ShardJob, max_windows, remove_leftovers, shard_name, write_shard
from pangu_alpha.data.tokens import TokenJob, write_tokens
from pangu_alpha.files.lock import LOCK_NAME, hold_folder
from pangu_alpha.files.paths import is_real_folder
from pangu_alpha.files.reading import read_json
from pangu_alpha.files.shown import shown
from pangu_alpha.files.writing import write_json
from pangu_alpha.processes.workers import Advance, run_jobs
from pangu_alpha.text.clean import CleanRules
from pangu_alpha.text.documents.inputs import few
from pangu_alpha.text.documents.read_options import ReadOptions
from pangu_alpha.text.documents.reading import DocumentReader
from pangu_alpha.text.tokenizer import PanguTokenizer

_UNFINISHED = "unfinished"
_SETTINGS = "settings.json"

# Called with (stage, unit of work, total units); returns the function to call with each advance.
Progress = Callable[[str, str, int], Advance]


@dataclass(frozen=True)
class PreprocessConfig:
    """Everything that decides the records, and how many processes make them.

    MindSpore opens at most 4096 MindRecord files, which hold 500 billion tokens at a seq_length of 1024.

    Args:
        inputs: Corpus files; windows follow their order.
        tokenizer: Vocabulary file.
        output: Folder for the records. It must be new, empty, or left by an interrupted run with the same
            settings.
        clean: Cleaning rules; duplicate lines are looked for within each input file. None leaves documents
            unchanged.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    inputs: tuple[str, ...]
    tokenizer: str
    output: str
    seq_length: int = option(
        REQUIRED, "tokens that a sample trains on; a window of the records has one more", at_least=1
    )
    end_of_document: str = option(
        "<eod>",
        "control piece after each document; the card of a released model names its own",
        metavar="PIECE",
    )
    read: ReadOptions = field(default_factory=ReadOptions)
    clean: CleanRules | None = field(default_factory=CleanRules)
    pad_last: bool = option(
        False, "fill up the last window with <pad> instead of leaving its tokens out, for a validation set"
    )
    windows_per_shard: int | None = option(
        None,
        "windows of one MindRecord file; by default there are eight files of 60 to 500 MB, and of a smaller "
        "or larger corpus as many as that takes",
        at_least=1,
    )
    workers: int = option(1, "processes, each of which reads one input file at a time", at_least=1)

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
        if not self.inputs:
            yield "inputs: empty; name at least one corpus file"
        if isinstance(self.output, str) and (fault := name_fault(os.path.realpath(self.output))):
            yield f"output: {fault}"  # MindRecord writes to the resolved path, but reads by the path as given

    def settings(self, tokenizer_digest: str) -> dict[str, str]:
        """Everything that decides the windows, as flat text: equal settings and inputs make equal records."""
        names = [recorded_name(name) for name in self.inputs]
        fixed = {"tokenizer": tokenizer_digest, "inputs": json.dumps(names, ensure_ascii=False)}
        plain = ("seq_length", "end_of_document", "pad_last", "windows_per_shard")
        fixed |= {name: str(getattr(self, name)) for name in plain}
        fixed |= {f"read.{key}": str(value) for key, value in self.read.changed().items()}
        clean = to_mapping(self.clean) or {"": None}
        return fixed | {f"clean.{key}".rstrip("."): str(value) for key, value in clean.items()}


def preprocess(config: PreprocessConfig, progress: Progress | None = None) -> Manifest:
    """Makes records, completes unfinished ones, or returns at once if they are complete.

    Args:
        progress: Called for the two stages, tokenizing and writing.

    Returns:
        The manifest of the finished folder.

    Raises:
        ValueError: The input is bad, or the output folder holds something else. Files that preprocess.py did
            not make are never touched.
    """
    tokenizer = PanguTokenizer(config.tokenizer)
    vocabulary = _vocabulary(tokenizer, config.end_of_document)
    _check_inputs(config)
    settings = config.settings(tokenizer.digest)
    output = Path(config.output)
    finished = _found(output, settings)
    if finished is not None:
        _check_unchanged(config, finished)
        if not is_real_folder(output / _UNFINISHED):
            return finished
    with hold_folder(output, "preprocess.py"):
        finished = _found(output, settings)  # another process may have completed it meanwhile
        if finished is None:
            finished = _make(config, vocabulary, settings, progress or (lambda *_: lambda *__: None))
        _remove_intermediate(config.output, finished)
    return finished


def _make(
    config: PreprocessConfig, vocabulary: Vocabulary, settings: dict[str, str], progress: Progress
) -> Manifest:
    notes = Path(config.output) / _UNFINISHED / _SETTINGS
    _refuse_links(notes.parent)
    if not notes.is_file():
        notes.parent.mkdir(exist_ok=True)
        write_json(notes, settings)
    jobs = _token_jobs(config, vocabulary.digest)
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
    return manifest


def _refuse_links(folder: Path) -> None:
    """Refuses links, so that nothing outside `unfinished/` is written or removed.

    Raises:
        ValueError: The folder is a link or not a folder, or it contains a link.
    """
    if os.path.lexists(folder) and not is_real_folder(folder):
        raise ValueError(f"{shown(folder)}: a link, or no folder; remove it, or give another --output")
    links = [entry.name for entry in os.scandir(folder) if entry.is_symlink()] if folder.exists() else []
    if links:
        raise ValueError(
            f"{shown(folder)}: {shown(min(links))} is a link, which preprocess.py never makes; "
            "remove it, or give another --output"
        )


def _vocabulary(tokenizer: PanguTokenizer, end_of_document: str) -> Vocabulary:
    end = tokenizer.id_of(end_of_document)
    if end not in tokenizer.control_ids:
        raise ValueError(
            f"end_of_document: {end_of_document!r} may occur in text; use a control piece such as '<eod>'"
        )
    if lost := tokenizer.lost_pieces:
        raise ValueError(
            f"{shown(tokenizer.vocab_file)}: text never yields its pieces for {' and '.join(lost)}, so each "
            "of these would become <unk>; make them user-defined pieces, as they are in the released "
            "vocabulary and in those of python -m pangu_alpha.cli.vocab"
        )
    return Vocabulary(tokenizer.digest, tokenizer.vocab_size, end_of_document, end, tokenizer.pad_id)


def _check_inputs(config: PreprocessConfig) -> None:
    """Checks that every input exists, is of a known kind, begins as it should, and is named only once.

    All faults are reported together.
    """
    faults = []
    seen: set[str] = set()
    for name in config.inputs:
        path = Path(name)
        if not path.is_file():
            faults.append(f"{shown(name)}: " + _why_no_file(path))
            continue
        try:
            DocumentReader(path, config.read).check_beginning()
        except ValueError as error:
            faults.append(str(error))
        real = os.path.realpath(path)
        if real in seen:
            faults.append(f"{shown(name)}: named twice; its text would be in the records twice")
        seen.add(real)
    if faults:
        raise ConfigError(f"inputs: {fault}" for fault in few(faults))


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return "a folder; name its files"
    return "a pipe or a device; give a file" if path.exists() else "no such file"


def _found(output: Path, settings: dict[str, str]) -> Manifest | None:
    """Returns the manifest if records with these settings are complete; None if they can be made here.

    Raises:
        ValueError: The folder holds something else.
    """
    notes = output / _UNFINISHED / _SETTINGS
    manifest = Manifest.read(output) if (output / MANIFEST_NAME).exists() else None
    if manifest is None and not notes.is_file():
        if output.exists() and (not output.is_dir() or any(map(_is_of_others, output.iterdir()))):
            raise ValueError(f"{shown(output)}: holds other files; give an --output that is new or empty")
        return None
    theirs = manifest.settings if manifest else _noted(notes)
    changed = [key for key in {**theirs, **settings} if theirs.get(key) != settings.get(key)]
    if changed:
        differences = [
            f"{key}: {_cut(theirs.get(key))} there, {_cut(settings.get(key))} now" for key in changed
        ]
        heading = f"{shown(output)}: holds records of other settings; give another --output. They differ in:"
        raise ValueError("\n  - ".join([heading, *differences]))
    return manifest


def _is_of_others(path: Path) -> bool:
    return path.name != _UNFINISHED and not path.name.startswith(LOCK_NAME)


def _noted(notes: Path) -> dict[str, str]:
    content = read_json(notes)
    if not isinstance(content, dict):
        raise ValueError(f"{shown(notes)}: damaged; remove {shown(notes.parent)} to make the records anew")
    return content


def _cut(setting: object) -> str:
    return shown(setting, 300)  # the setting may be the names of 100,000 inputs


def _check_unchanged(config: PreprocessConfig, manifest: Manifest) -> None:
    faults = verify(config.output, full=False)
    for name, file in zip(config.inputs, manifest.inputs, strict=True):
        now = os.stat(name)
        if (now.st_size, now.st_mtime_ns) != (file.bytes, file.modified_ns):
            faults.append(f"{shown(name)}: changed since these records were made")
    if faults:
        heading = f"{shown(config.output)}: complete, but out of date or damaged; give another --output:"
        raise ValueError("\n  - ".join([heading, *few(faults)]))


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
    # The largest files first, so that no process works on one alone at the end.
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
    """Enough files for several processes to write at once, but no small ones; depends only on the corpus."""
    largest = max_windows(seq_length)
    return min(max(-(-windows // 8), largest // 8, 1), largest)


def _remove_intermediate(output: str, manifest: Manifest) -> None:
    """Removes the known files in `unfinished/` by name, and then the folder if nothing else is in it."""
    folder = Path(output) / _UNFINISHED
    if not is_real_folder(folder):
        return
    remove_leftovers(folder, manifest.shards)
    tokens = [_token_name(place) for place in range(len(manifest.inputs))]
    ours = (f"{name}{ending}" for name in tokens for ending in ("", ".partial", ".json", ".json.partial"))
    for name in (*ours, _SETTINGS):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _token_name(place: int) -> str:
    return f"{place:05d}.tokens"
