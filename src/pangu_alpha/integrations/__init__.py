"""Adapters by which other programs use PanGu-alpha; each module is imported only where it is needed."""
