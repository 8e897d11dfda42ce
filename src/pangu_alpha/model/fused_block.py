"""A block by kernels that compute several operators at once; model.pangu.Block defines what it computes."""

from __future__ import annotations

from typing import Any


class FusedBlock:
    """The part of model.pangu.Block for devices that have such kernels.

    It uses the block's norms, attention and feed-forward layers for their parameters and caches, and `fused`
    for the kernels: a cell like operators.native.fused.BlockKernels.
    """

    attention_norm: Any
    attention: Any
    feed_forward_norm: Any
    feed_forward: Any
    fused: Any

    def by_kernels(self, x, mask, query, dropout_rows, places):
        """As Block.construct."""
        normed, x = self.fused.fork(x, self.attention_norm.gamma, self.attention_norm.beta)
        query, key, value = self.project(query, normed)
        if self.attention.cached:
            key = self.attention.key_cache(key, places)
            value = self.attention.value_cache(value, places)
        attended = self.attention.output(self.attention.core(query, key, value, mask, dropout_rows))
        x = self.fused.attention_sum(x, attended, dropout_rows)
        normed, x = self.fused.fork(x, self.feed_forward_norm.gamma, self.feed_forward_norm.beta)
        up, down = self.feed_forward.up, self.feed_forward.down
        transformed = self.fused.feed_forward(normed, up.weight, up.bias, down.weight, down.bias)
        return self.fused.feed_forward_sum(x, transformed, dropout_rows)

    def project(self, query, x):
        """Queries, keys and values, [T, H] each; without `query` the queries come from x, too."""
        layers = self.attention
        weights, biases = (layers.key.weight, layers.value.weight), (layers.key.bias, layers.value.bias)
        if query is None:
            return self.fused.projections(x, (layers.query.weight, *weights), (layers.query.bias, *biases))
        key, value = self.fused.projections(x, weights, biases)
        return layers.query(query), key, value

    def weights(self):
        """All parameters: those of the norms, and weight and bias of each Linear in the order of use."""
        attention, feed_forward = self.attention, self.feed_forward
        return (
            self.attention_norm.gamma, self.attention_norm.beta,
            self.feed_forward_norm.gamma, self.feed_forward_norm.beta,
            attention.query.weight, attention.query.bias, attention.key.weight, attention.key.bias,
            attention.value.weight, attention.value.bias, attention.output.weight, attention.output.bias,
            feed_forward.up.weight, feed_forward.up.bias, feed_forward.down.weight, feed_forward.down.bias,
        )  # fmt: skip
