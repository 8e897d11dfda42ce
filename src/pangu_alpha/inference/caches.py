"""The caches of all layers of a model, which are lent to it for a while.

Several sets may exist for one model, as for scoring and for generating. The model uses one at a time, and
each compiled graph keeps the set with which it was compiled.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import nn

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.processes.host_memory import available_bytes

_PARTS = ("key_cache", "value_cache")  # attributes of an attention


class Caches:
    """Keys and values of all layers.

    Args:
        model: Its attentions use these caches between `attach` and `detach`.
        rows: Number of rows.
        slots: Number of slots of each row.
        name: What the parameters' names begin with.

    Raises:
        ValueError: The caches do not fit into the memory that is available. On Ascend, MindSpore itself
            refuses what does not fit, when it compiles the first graph.
    """

    def __init__(self, model: PanguAlpha, rows: int, slots: int, name: str) -> None:
        config = model.config
        if ms.get_context("device_target") == "CPU":
            _refuse_too_large(config, rows, slots, model.compute_dtype, available_bytes())
        shape = (rows, config.num_heads, slots, config.head_size)
        layers = [*enumerate(model.blocks), ("query", model.query_layer)]
        self._attentions: list[nn.Cell] = [layer.attention for _, layer in layers]
        self._names = [f"{name}.{layer}" for layer, _ in layers]
        make = model.operators.cache
        self._caches = [[make(*shape, model.compute_dtype) for _ in _PARTS] for _ in layers]

    @property
    def cells(self) -> list[nn.Cell]:
        """The caches of all layers, keys before values."""
        return [cache for caches in self._caches for cache in caches]

    def attach(self) -> None:
        """Lends the caches to the model.

        Raises:
            ValueError: The model has other caches.
        """
        if any(attention.cached for attention in self._attentions):
            raise ValueError("the model has a cache already: close the decoder that holds it first")
        for attention, caches, name in zip(self._attentions, self._caches, self._names, strict=True):
            for part, cache in zip(_PARTS, caches, strict=True):
                setattr(attention, part, cache)
                cache.table.name = f"{name}.{part}"  # a cell that becomes an attribute gets another name
            attention.cached = True

    def detach(self) -> None:
        """Takes them back; the model has no cache then."""
        for attention in self._attentions:
            attention.key_cache = attention.value_cache = None
            attention.cached = False


def cache_bytes(config: ModelConfig, rows: int, slots: int, itemsize: int) -> int:
    """Bytes of the keys and values of all layers."""
    return config.num_layers * 2 * rows * slots * config.hidden_size * itemsize


def _refuse_too_large(
    config: ModelConfig, rows: int, slots: int, dtype: ms.Type, available: int | None
) -> None:
    itemsize = ms.dtype_to_nptype(dtype)().itemsize
    needed = cache_bytes(config, rows, slots, itemsize)
    if available is not None and needed > available:
        raise ValueError(
            f"the cache needs {_size(needed)} ({config.num_layers} layers x 2 x {rows} rows x {slots} "
            f"slots x {config.hidden_size} numbers of {itemsize} bytes), but {_size(available)} of "
            "memory are available: take fewer rows or a smaller context"
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
