"""Scores texts: models trained here, a user's fastText model, perplexity; finds texts of evaluation sets."""

from pangu_alpha.corpus.quality.contamination import ContaminationIndex, Hit, without_hits
from pangu_alpha.corpus.quality.fasttext import FastTextModel
from pangu_alpha.corpus.quality.hashed_model import HashedModel, HashedSettings
from pangu_alpha.corpus.quality.selection import kept_by_quality
from pangu_alpha.corpus.quality.spam import Examples, HeldOut, held_out, spam_examples
from pangu_alpha.corpus.quality.trigrams import TrigramModel, TrigramSettings

__all__ = [
    "ContaminationIndex",
    "Examples",
    "FastTextModel",
    "HashedModel",
    "HashedSettings",
    "HeldOut",
    "Hit",
    "TrigramModel",
    "TrigramSettings",
    "held_out",
    "kept_by_quality",
    "spam_examples",
    "without_hits",
]
