"""The section serve of a server's YAML."""

from pangu_alpha.config.serve.settings import LOOPBACK, ServeConfig, load_serve_config

__all__ = ["LOOPBACK", "ServeConfig", "load_serve_config"]
