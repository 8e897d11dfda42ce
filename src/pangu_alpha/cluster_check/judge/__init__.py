"""Compares what was measured with what must hold. Knows records only: no device, no MindSpore."""
