"""Shows properties of a parallel plan without its devices: dry runs of the compiler, replays on CPU."""

__all__ = ["checks", "dry_run", "graph", "replay"]
