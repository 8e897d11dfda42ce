"""An OpenAI-compatible HTTP server over the inference engine.

Two processes: the front (HTTP, JSON, text; no MindSpore) and the engine (ids and the network), joined by a
socket pair that carries JSON lines.
"""

__all__ = ["access", "engine", "front", "scenarios", "wire"]
