"""The training mixture of a finished corpus: the paper's shares on what the corpus has."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Mapping
from typing import Any

from pangu_alpha.config.corpus import CorpusConfig
from pangu_alpha.config.schema import build, nearest, parse_yaml
from pangu_alpha.corpus.engine import read_record, store
from pangu_alpha.corpus.stages.driver import result_of
from pangu_alpha.files.shown import shown

_FILE = "mixtures.yaml"


def mixtures() -> dict[str, Any]:
    """The shipped mixtures by name: a summary, and weights by kind of source."""
    file = importlib.resources.files(__package__).joinpath(_FILE)
    found: dict[str, Any] = parse_yaml(file.read_text("utf-8"), _FILE)
    return found


def kept_tokens(folder: str) -> tuple[dict[str, int], bool]:
    """The tokens of each source of a finished corpus, before budgets; and whether they are characters."""
    result = result_of(folder)
    stage = store.join(folder, "stages", result["stages"]["mix"])
    tokens = dict.fromkeys(result["config"]["sources"], 0)
    for name in result["files"]:
        record = read_record(stage, int(name.rpartition("part-")[2].partition(".")[0]))
        if record is None:
            raise ValueError(f"{shown(folder)}: a later start is not finished; run it to its end first")
        tokens[record["source"]] += record["facts"]["tokens"]
    return tokens, result["config"]["vocabulary"] is None


def mix_text(folder: str, name: str, records: str) -> str:
    """The section `data` of a run's YAML, with the weights of a mixture.

    A kind that several sources are of is shared among them by their tokens. Sources of no kind of the paper
    get what they have: the weight of a source is then its share of all tokens.

    Args:
        records: Folder in which preprocess.py makes one folder of records for each source.

    Raises:
        ValueError: There is no such mixture, or the folder holds no finished corpus.
    """
    known = mixtures()
    if name not in known:
        raise ValueError(f"--profile: {name!r} is no mixture; {nearest(name, known)}")
    config = build(CorpusConfig, result_of(folder)["config"])
    tokens, characters = kept_tokens(folder)
    return (
        "\n".join(_lines(config, tokens, known[name], records, "characters" if characters else "tokens"))
        + "\n"
    )


def _lines(
    config: CorpusConfig, tokens: Mapping[str, int], mixture: Mapping[str, Any], records: str, unit: str
) -> Iterator[str]:
    weights = weights_of(config, tokens, mixture["weights"])
    total = sum(weights.values())
    yield f"# {mixture['summary']} Shares of the paper's table 4, see docs/corpus.md."
    everything = sum(tokens.values())
    yield f"# Epochs are those of a run that draws as many {unit} as the corpus has, {everything:,}."
    yield "data:"
    yield "  train:"
    for source, weight in weights.items():
        epochs = weight / total * everything / tokens[source]
        about = f"{tokens[source]:,} {unit}, {weight / total:.2%}, {epochs:.2f} epochs"
        yield f"    {source}: {{records: {records}/{source}, weight: {weight:.6g}}}  # {about}"
    for source in tokens.keys() - weights.keys():
        yield f"    # {source}: has no text left"
    absent = mixture["weights"].keys() - {config.kind_of(source) for source in weights}
    if absent:
        yield f"# The corpus has nothing of {', '.join(sorted(absent))}; the other shares grow in proportion."


def weights_of(
    config: CorpusConfig, tokens: Mapping[str, int], shares: Mapping[str, float]
) -> dict[str, float]:
    """The weight of each source that has tokens, in percent."""
    by_kind: dict[str, int] = {}
    for source, number in tokens.items():
        kind = config.kind_of(source)
        by_kind[kind] = by_kind.get(kind, 0) + number
    total = sum(tokens.values())
    return {
        source: (
            shares[kind] * number / by_kind[kind]
            if (kind := config.kind_of(source)) in shares
            else 100 * number / total
        )
        for source, number in tokens.items()
        if number
    }
