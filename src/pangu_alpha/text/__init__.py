"""Text: where it comes from, how it is read and cleaned, and how it becomes token ids. No MindSpore."""

__all__ = [
    "characters",
    "clean",
    "corpora",
    "documents",
    "growing",
    "ledger",
    "ngrams",
    "punctuation",
    "tokenizer",
    "vocabulary",
]
