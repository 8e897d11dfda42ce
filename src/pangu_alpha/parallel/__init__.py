"""Where the mathematics runs: devices, contexts. Knows cells, changes none of their code."""

__all__ = ["apply", "axes", "context", "layout", "mesh", "reductions", "sharding", "table_fit", "world"]
