"""From batches to a trained network: loss, recipe, step, loop and report."""

__all__ = ["checkpoints", "engine", "guard", "loop", "loss", "partitioned", "schedule", "step", "validation"]
