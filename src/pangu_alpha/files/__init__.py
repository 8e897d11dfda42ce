"""Reading files within bounds, writing them whole or not at all, and error texts that are safe to print.

Knows neither the formats of this project nor MindSpore.
"""

__all__ = ["lock", "paths", "reading", "shown", "writing", "yaml_text"]
