"""The network as a whole: the official arrays, decoding, and the released weights."""

__all__ = ["decoding", "network", "released"]
