"""How each operator of a block is split best over the devices of a group."""

__all__ = ["draw", "found_table", "patterns", "strategies", "verify"]
