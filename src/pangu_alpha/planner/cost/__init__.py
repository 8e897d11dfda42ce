"""The cost model: time, memory and traffic of a plan on a cluster. Clusters and devices are data (YAML)."""

__all__ = ["collectives", "cost", "hardware", "job", "kept", "memory", "schedule", "shapes", "software"]
