"""Which machine is which rank: rank tables, where the axes of a plan lie, whether all ranks agree."""
