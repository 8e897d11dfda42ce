"""The YAML of a corpus."""

from pangu_alpha.config.corpus.settings import (
    SOURCE_KINDS,
    TRAIN,
    ContaminationSettings,
    CorpusConfig,
    CorpusSource,
    EvaluationSet,
    QualityConfig,
    Reading,
    SignatureSettings,
    load_corpus_config,
)

__all__ = [
    "SOURCE_KINDS",
    "TRAIN",
    "ContaminationSettings",
    "CorpusConfig",
    "CorpusSource",
    "EvaluationSet",
    "QualityConfig",
    "Reading",
    "SignatureSettings",
    "load_corpus_config",
]
