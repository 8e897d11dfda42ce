"""Evaluation tasks as data: catalogue, files, templates. Knows texts and files, and no network."""

__all__ = ["catalog", "item", "loading", "task"]
