"""Which machine is which rank: rank tables, where the axes of a plan lie, whether all ranks agree."""

__all__ = [
    "chips",
    "drawing",
    "host_names",
    "placement",
    "process_identity",
    "tables",
    "tensor_groups",
    "world_check",
]
