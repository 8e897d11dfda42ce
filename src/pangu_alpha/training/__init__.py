"""From batches to a trained network: loss, recipe, step, loop and report."""
