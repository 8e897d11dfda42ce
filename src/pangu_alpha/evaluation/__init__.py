"""Measures how good a trained network is, compared with baselines on the same tokens."""

__all__ = ["contamination", "metrics", "perplexity", "results", "statistics"]
