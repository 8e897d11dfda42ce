"""The wire format, in pure functions: JSON bodies to requests, and the engine's events to answers."""

__all__ = [
    "answers",
    "body",
    "catalog",
    "chat",
    "choices",
    "errors",
    "examples",
    "fields",
    "openapi",
    "prompts",
    "requests",
    "tokens",
]
