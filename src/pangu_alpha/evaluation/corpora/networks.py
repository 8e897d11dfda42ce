"""Trains networks on two corpora and scores them on one development set."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any

from pangu_alpha.config.run import TrainConfig, load_train_config
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.config.zoo import load_network
from pangu_alpha.data.manifest import Manifest
from pangu_alpha.data.preprocess import PreprocessConfig, preprocess
from pangu_alpha.evaluation.contamination import LONGEST, ItemText, find_overlap
from pangu_alpha.evaluation.corpora.comparison import CorporaComparison, Development, Variant
from pangu_alpha.evaluation.corpora.settings import CorporaConfig
from pangu_alpha.evaluation.perplexity import Score, score_network
from pangu_alpha.files.lock import hold_folder
from pangu_alpha.files.reading import read_json
from pangu_alpha.files.shown import shown
from pangu_alpha.files.writing import json_text, write_json, write_text
from pangu_alpha.text.documents.reading import DocumentReader
from pangu_alpha.text.tokenizer import PanguTokenizer
from pangu_alpha.text.vocabulary import train_vocabulary
from pangu_alpha.training.loop import train

logger = logging.getLogger(__name__)

_DEVELOPMENT = "development"
_VOCABULARY_CHARACTERS = 4_000_000  # of each variant, so that neither decides the pieces
_LOG_LINES = 5  # of one training


def compare_corpora(config: CorporaConfig, device: str) -> CorporaComparison | int:
    """Trains networks on two corpora and scores them; an interrupted comparison is continued.

    Args:
        device: Device in use, "CPU" or "Ascend".

    Returns:
        The comparison, also written to comparison.json in the output; or the exit code of a training that a
        signal stopped.

    Raises:
        ValueError: Files cannot be read, the output holds a comparison of something else, a variant is too
            small to train on, or nothing is left of the development set.
    """
    output = Path(config.output)
    with hold_folder(output, "comparing corpora"):
        _check_settings(output, config)
        tokenizer = _vocabulary(output, config)
        records = {name: _records(output, config, tokenizer, name) for name in config.variants}
        development = _development(output, config, tokenizer)
        scores: dict[str, list[Score]] = {name: [] for name in config.variants}
        for seed in range(1, config.seeds + 1):
            for name in config.variants:
                run = _train_config(output, config, tokenizer, name, seed)
                code = train(run, device)
                if code:
                    return code
                scores[name].append(score_network(run.run.output, str(_records_folder(output, _DEVELOPMENT))))
        comparison = _comparison(config, records, development, scores)
        write_json(output / "comparison.json", asdict(comparison))
    return comparison


def _check_settings(output: Path, config: CorporaConfig) -> None:
    """Notes the settings, or compares them with those that the folder was begun with."""
    path, settings = output / "settings.json", json.loads(json.dumps(asdict(config) | {"output": None}))
    if not path.exists():
        write_json(path, settings)
        return
    begun = read_json(path)
    for name, value in settings.items():
        if begun.get(name) != value:
            raise ValueError(
                f"{shown(output)}: holds a comparison with {name} {begun.get(name)}, not {value}; give "
                "another --output, or the options that it was begun with"
            )


def _vocabulary(output: Path, config: CorporaConfig) -> PanguTokenizer:
    if config.vocabulary is not None:
        return PanguTokenizer(config.vocabulary)
    path = output / "vocab.model"
    if not path.exists():
        logger.info("training a vocabulary of %d pieces on equal parts of both", config.vocabulary_size)
        texts = (text for files in config.variants.values() for text in _beginning(files))
        train_vocabulary(texts, path, config.vocabulary_size)
    return PanguTokenizer(path)


def _beginning(files: Iterable[str]) -> Iterator[str]:
    """The first documents of files, as many as the vocabulary's share allows."""
    characters = 0

    def fits(text: str) -> bool:
        nonlocal characters
        characters += len(text)
        return characters - len(text) < _VOCABULARY_CHARACTERS

    return takewhile(fits, _documents(files))


def _documents(files: Iterable[str]) -> Iterator[str]:
    for path in files:
        yield from DocumentReader(path)


def _records_folder(output: Path, name: str) -> Path:
    return output / "records" / name


def _records(output: Path, config: CorporaConfig, tokenizer: PanguTokenizer, name: str) -> Manifest:
    """Makes the records of a variant, its text as it is."""
    made = PreprocessConfig(
        config.variants[name],
        str(tokenizer.vocab_file),
        str(_records_folder(output, f"corpus_{name}")),
        seq_length=config.seq_length,
        clean=None,
    )
    return preprocess(made)


def _development(output: Path, config: CorporaConfig, tokenizer: PanguTokenizer) -> Development:
    """Makes the records of the development set without the lines that a variant has."""
    documents = [
        [line for line in text.split("\n") if line.strip()] for text in _documents(config.development)
    ]
    lines = [line for document in documents for line in document]
    items = [ItemText(str(number), {"line": line}) for number, line in enumerate(lines)]
    folders = [_records_folder(output, f"corpus_{name}") for name in config.variants]
    if not items:
        raise ValueError(f"{', '.join(map(shown, config.development))}: no line of text; give another --dev")
    (overlap,) = find_overlap({_DEVELOPMENT: items}, folders, tokenizer, LONGEST)
    seen = iter(overlap.dirty.tolist())
    kept = ["\n".join(line for line in document if not next(seen)) for document in documents]
    if not any(kept):
        raise ValueError(
            f"all {len(lines):,} lines of the development set are in one of the corpora; give a --dev "
            "that was kept out of both"
        )
    path = output / "development.jsonl"
    content = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in kept if text)
    if not path.exists() or path.read_text("utf-8") != content:  # records notice a file that is written again
        write_text(path, content)
    preprocess(
        PreprocessConfig(
            (str(path),),
            str(tokenizer.vocab_file),
            str(_records_folder(output, _DEVELOPMENT)),
            seq_length=config.seq_length,
            clean=None,
            pad_last=True,
        )
    )
    return Development(len(lines), int(overlap.dirty.sum()), overlap.too_short)


def _train_config(
    output: Path, config: CorporaConfig, tokenizer: PanguTokenizer, name: str, seed: int
) -> TrainConfig:
    """The configuration of one run, also left beside it for train.py: JSON, which is YAML, too."""
    folder = output / "runs" / f"{name}_seed_{seed}"
    network = load_network(config.model)
    document: dict[str, Any] = {
        "model": to_mapping(network.model)
        | {"seq_length": config.seq_length, "vocab_size": tokenizer.vocab_size},
        "data": {
            "train": {"corpus": {"records": str(_records_folder(output, f"corpus_{name}"))}},
            "vocabulary": str(tokenizer.vocab_file),
        },
        "optim": to_mapping(network.optim)
        | {"warmup_steps": min(100, config.steps // 10), "decay_steps": config.steps},
        "run": {
            "output": str(folder),
            "steps": config.steps,
            "batch_size": config.batch_size,
            "seed": seed,
            "log_every": max(config.steps // _LOG_LINES, 1),
            "checkpoint": {"keep_last": 1},
        },
    }
    path = output / "runs" / f"{name}_seed_{seed}.yaml"
    path.parent.mkdir(exist_ok=True)
    write_text(path, json_text(document))
    return load_train_config(str(path), [])


def _comparison(
    config: CorporaConfig,
    records: Mapping[str, Manifest],
    development: Development,
    scores: Mapping[str, Sequence[Score]],
) -> CorporaComparison:
    trained = config.steps * config.batch_size * config.seq_length
    variants = [
        Variant(
            name,
            made.documents,
            made.tokens,
            trained / max(made.windows * config.seq_length, 1),
            tuple(score.bits_per_character for score in scores[name]),
        )
        for name, made in records.items()
    ]
    any_score = next(iter(scores.values()))[0]
    return CorporaComparison(*variants, development, any_score.tokens, any_score.characters)
