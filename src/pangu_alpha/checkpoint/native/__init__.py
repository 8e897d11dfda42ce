"""Our own form of a checkpoint: safe against a kill at any moment, checksummed, of one process or many."""

__all__ = ["background", "distributed", "durable", "folders", "format", "store", "tensor_file"]
