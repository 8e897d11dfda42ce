"""Maps the network onto devices: mesh, layouts, operator tables, contexts. Changes no code of the cells."""

__all__ = ["apply", "axes", "context", "layout", "mesh", "reductions", "sharding", "table_fit", "world"]
