"""From a checkpoint and prompts to text: loading, cached decoding, sampling, and task templates."""

__all__ = ["load", "prompts", "tasks", "text"]
