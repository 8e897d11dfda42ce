"""From corpus files to documents: finds files, detects kind and encoding, and splits them into documents."""

__all__ = ["encoding", "inputs", "json_records", "opening", "read_options", "reading", "splitting"]
