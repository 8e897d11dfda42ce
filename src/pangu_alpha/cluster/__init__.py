"""Which machine holds which rank: rank tables, placement of a plan's axes, and a check of all ranks."""

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
