"""Plans: what a step of a model costs on a cluster in seconds and bytes, by a model with few constants."""

__all__ = ["calibration", "cost", "operators", "search", "text_tables"]
