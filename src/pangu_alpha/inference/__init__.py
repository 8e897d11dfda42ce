"""What a trained network does with text: it continues prompts, and scores given tokens."""

__all__ = ["caches", "decoder", "engine", "load", "nats", "packing", "prompts", "tasks", "text"]
