"""From token files to training batches: packing, records and their manifest, order, batches."""
