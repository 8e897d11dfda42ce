"""Runs of training's own engine or trainer: on one device, and on all ranks together."""

__all__ = ["overflow", "parallel", "partitioned", "reshard", "training"]
