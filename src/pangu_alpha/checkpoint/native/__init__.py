"""The project's own checkpoint form: survives a kill at any moment, checksummed, of one or many processes."""

__all__ = ["background", "distributed", "durable", "folders", "format", "opening", "store", "tensor_file"]
