"""Judges what measure.models has measured."""

__all__ = ["decoding", "network", "released"]
