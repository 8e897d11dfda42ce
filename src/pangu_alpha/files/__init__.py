"""Files of any kind: read within bounds and refused in words, written whole or not at all.

Knows no form of ours and no MindSpore.
"""

__all__ = ["lock", "paths", "reading", "shown", "writing", "yaml_text"]
