"""Checkpoints that describe themselves, are whole or absent, and say which byte is wrong; no MindSpore."""
