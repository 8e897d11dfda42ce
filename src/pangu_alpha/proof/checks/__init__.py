"""Checks of a plan's graphs: collectives that meet, dropout masks, float status, predicted traffic."""

__all__ = ["dependences", "dropout", "order", "overflow", "stages", "traffic", "traffic_check"]
