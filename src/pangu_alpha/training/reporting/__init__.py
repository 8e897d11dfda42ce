"""What a run shows: its console lines, metrics.jsonl, TensorBoard and the loss curve."""

__all__ = ["peak", "report"]
