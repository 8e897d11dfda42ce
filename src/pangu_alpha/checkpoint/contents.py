"""Which tensors a network's checkpoint has: its parameters and, of the trained ones, two moments each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import build
from pangu_alpha.network.parameters import parameter_shapes

MOMENTS = ("adam_m.", "adam_v.")  # what stands before a parameter's name in those of its moments


def network_config(values: Mapping[str, Any]) -> Any:
    """The configuration of the network that a checkpoint is of, as its manifest keeps it.

    Raises:
        ConfigError: It breaks a rule.
    """
    return build(ModelConfig, values, "model")


def parameter_of(name: str) -> str:
    """The parameter that a tensor belongs to: itself, or that of a moment."""
    prefix = next((prefix for prefix in MOMENTS if name.startswith(prefix)), "")
    return name.removeprefix(prefix)


def tensor_shapes(network: Any) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shape of every tensor by stem and name, without padding.

    Args:
        network: Its configuration, of a type whose parameters have a table.
    """
    trained = parameter_shapes(network, trained=True)
    return {
        "model": parameter_shapes(network),
        "optimizer": {prefix + name: shape for prefix in MOMENTS for name, shape in trained.items()},
    }
