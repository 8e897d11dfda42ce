"""Measures how good a trained network is: perplexity against baselines, and scores of given texts."""

from __future__ import annotations

from typing import Any

__all__ = ["Scorer", "encode_pair", "perplexity", "scoring"]


def __getattr__(name: str) -> Any:
    if name == "Scorer":  # on first use, because it loads MindSpore
        from pangu_alpha.evaluation.scoring import Scorer

        return Scorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
