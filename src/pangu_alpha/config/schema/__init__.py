"""Turns YAML and command lines into frozen dataclasses, and reports every problem at once."""

from pangu_alpha.config.schema.building import (
    Choice,
    Dataclass,
    PathText,
    build,
    field_types,
    let_choose,
    to_mapping,
    validate,
)
from pangu_alpha.config.schema.mappings import (
    ConfigError,
    each_override,
    merge,
    nearest,
    parse_overrides,
    parse_yaml,
    read_yaml,
    without_keys,
)

__all__ = [
    "Choice",
    "ConfigError",
    "Dataclass",
    "PathText",
    "build",
    "each_override",
    "field_types",
    "let_choose",
    "merge",
    "nearest",
    "parse_overrides",
    "parse_yaml",
    "read_yaml",
    "to_mapping",
    "validate",
    "without_keys",
]
