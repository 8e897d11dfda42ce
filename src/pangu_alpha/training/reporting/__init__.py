"""What a run shows: its console lines, metrics.jsonl, TensorBoard and the loss curve."""

__all__ = ["output_folder", "peak", "report", "units"]
