"""Frozen dataclasses for every choice a user can make; knows no MindSpore."""
