"""What a run reports: console lines, metrics.jsonl, TensorBoard events, and the loss curve."""

__all__ = ["output_folder", "peak", "report", "units"]
