"""From batches to a trained network: objective, loss, optimizer, step, loop, and reports."""

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
