"""From corpus files to documents: which files, their encoding, their form, and where a document ends."""

__all__ = ["inputs", "opening", "read_options", "reading"]
