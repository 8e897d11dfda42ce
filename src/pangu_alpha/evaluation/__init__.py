"""How good a trained network is, beside baselines on the same tokens."""

__all__ = ["perplexity"]
