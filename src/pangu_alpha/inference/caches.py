"""The caches of all layers of a model, which are lent to it for a while.

Several sets may exist for one model, as for scoring and for generating. The model uses one at a time, and
each compiled graph keeps the set with which it was compiled.
"""

from __future__ import annotations

from mindspore import nn

from pangu_alpha.model.pangu import PanguAlpha

_PARTS = ("key_cache", "value_cache")  # attributes of an attention


class Caches:
    """Keys and values of all layers.

    Args:
        model: Its attentions use these caches between `attach` and `detach`.
        batch_size: Number of rows.
        slots: Number of slots of each row.
        name: What the parameters' names begin with.
    """

    def __init__(self, model: PanguAlpha, batch_size: int, slots: int, name: str) -> None:
        config = model.config
        shape = (batch_size, config.num_heads, slots, config.head_size)
        layers = [*enumerate(model.blocks), ("query", model.query_layer)]
        self._layers: list[nn.Cell] = [layer for _, layer in layers]
        self._attentions: list[nn.Cell] = [layer.attention for layer in self._layers]
        self._names = [f"{name}.{layer}" for layer, _ in layers]
        make = model.operators.cache
        self._caches = [[make(*shape, model.compute_dtype) for _ in _PARTS] for _ in layers]
        self._whole = [model.operators.cached_block(config, batch_size) for _ in layers]

    @property
    def whole_blocks(self) -> bool:
        """Whether single new positions are computed by a cell for a whole block; see model.pangu.Block."""
        return self._whole[0] is not None

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
        for layer, whole in zip(self._layers, self._whole, strict=True):
            layer.whole = whole

    def detach(self) -> None:
        """Takes them back; the model has no cache then."""
        for layer in self._layers:
            layer.whole = None
        for attention in self._attentions:
            attention.key_cache = attention.value_cache = None
            attention.cached = False
