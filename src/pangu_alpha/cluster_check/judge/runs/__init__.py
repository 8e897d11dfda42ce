"""Judges what measure.runs has measured."""

__all__ = ["parallel", "training"]
