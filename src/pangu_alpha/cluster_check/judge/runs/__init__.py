"""Judges what measure.runs has measured."""

__all__ = ["overflow", "parallel", "partitioned", "reshard", "training"]
