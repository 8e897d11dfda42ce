"""Tensors from any source to any target in bounded memory; resumes after a kill."""
