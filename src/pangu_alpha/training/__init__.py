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
    "optimizer",
    "partitioned",
    "reporting",
    "schedule",
    "step",
    "validation",
]
