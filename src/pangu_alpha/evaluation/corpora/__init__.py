"""Compares corpora by what networks learn from them: equal tokens, several seeds, one development set.

The paper judged its cleaning rules this way (section 3 of the PanGu-alpha report of 30 April 2021): a network
is trained on each variant, and its perplexity on a development set decides. Lines of the development set that
either variant contains are removed first, or the variant with more copies of it would win.
"""

__all__ = ["comparison", "networks", "settings"]
