"""From a checkpoint and prompts to text: sampling, cached decoding, task templates."""

__all__ = ["load", "prompts", "tasks", "text"]
