"""What must hold in the graphs of a plan: collectives that meet, masks, float status, predicted traffic."""

__all__ = ["dependences", "dropout", "order", "overflow", "stages", "traffic", "traffic_check"]
