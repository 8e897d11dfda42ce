"""What must hold in the graphs of a plan: collectives that meet, masks, float status, predicted traffic."""
