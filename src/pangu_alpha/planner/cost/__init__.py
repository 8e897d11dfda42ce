"""What a plan costs on a cluster: time, memory, traffic; and the clusters, as data."""

__all__ = ["collectives", "cost", "hardware", "job", "kept", "memory", "schedule", "shapes", "software"]
