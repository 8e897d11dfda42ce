"""Measures how good a trained network is: on tasks, by perplexity against baselines, by given texts."""

from __future__ import annotations

from typing import Any

__all__ = [
    "Scorer",
    "contamination",
    "corpora",
    "during_training",
    "encode_pair",
    "few_shot",
    "metrics",
    "perplexity",
    "results",
    "running",
    "scoring",
    "statistics",
    "tasks",
]


def __getattr__(name: str) -> Any:
    if name == "Scorer":  # on first use, because it loads MindSpore
        from pangu_alpha.evaluation.scoring import Scorer

        return Scorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
