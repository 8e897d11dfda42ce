"""Results of evaluation: their files, tables and picture, published figures, comparison of two models.

The files have the form of lm-evaluation-harness, so that its viewers read them.
"""

__all__ = ["compare", "files", "picture", "published", "reading", "result", "table"]
