"""From batches to a trained network: loss, recipe, step, loop and report."""

__all__ = [
    "checkpoints",
    "engine",
    "guard",
    "hooks",
    "loop",
    "loss",
    "objective",
    "objectives",
    "partitioned",
    "reporting",
    "schedule",
    "step",
    "validation",
]
