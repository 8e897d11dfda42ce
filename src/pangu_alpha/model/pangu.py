"""PanGu-alpha (arXiv 2104.12369): a causal transformer whose last layer uses the next position as its query.

Letters: B batch, S positions, C key positions (= S without a cache), T = B*S, H hidden, V vocabulary.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.model.attention import Attention
from pangu_alpha.model.fused_block import FusedBlock
from pangu_alpha.model.initialization import initialize
from pangu_alpha.model.layers import Embedding, FeedForward, LayerNorm, Logits
from pangu_alpha.model.operators import Operators, operators_for


class Block(FusedBlock, nn.Cell):
    """Pre-norm transformer layer. The query layer takes `query` as its queries instead of its own input.

    Args:
        index: Number of the layer from 0; it makes the layer's dropout masks differ from other layers'.
        asks_itself: Whether the queries come from the layer's own input; False in the query layer.

    Inputs are those of Attention; x, `query` and the output are [T, H] in the compute type.
    """

    def __init__(self, config: ModelConfig, operators: Operators, index: int, asks_itself=True) -> None:
        super().__init__()
        self.asks_itself = asks_itself
        self.attention_norm = LayerNorm(config, operators)
        self.attention = Attention(config, operators, salt=3 * index + 1)
        self.attention_dropout = operators.dropout(config.dropout, 3 * index + 2)
        self.feed_forward_norm = LayerNorm(config, operators)
        self.feed_forward = FeedForward(config, operators)
        self.feed_forward_dropout = operators.dropout(config.dropout, 3 * index + 3)
        self.add = ops.Add()
        self.fused = operators.fused_block and operators.fused_block(config, index)

    def construct(self, x, mask, query=None, dropout_rows=None, places=None):
        if self.fused is not None:
            return self.by_kernels(x, mask, query, dropout_rows, places)
        normed = self.attention_norm(x)
        if self.asks_itself:
            query = normed
        attended = self.attention(query, normed, mask, dropout_rows, places)
        x = self.add(x, self.attention_dropout(attended, dropout_rows))
        transformed = self.feed_forward(self.feed_forward_norm(x))
        return self.add(x, self.feed_forward_dropout(transformed, dropout_rows))


class PanguAlpha(nn.Cell):
    """The whole network, from token ids to logits.

    Args:
        config: Shape of the network. `norm_order` chooses between the graph of the released 2.6B and 13B and
            that of the 200B; `num_layers` counts the query layer.
        seed: Seed of the initial values; None leaves zeros, for weights that are loaded later.
        operators: The device's operators; None takes those of the current device.

    Inputs:
        - **input_ids** (Tensor) - int32 [B, S].
        - **position_ids** (Tensor) - int32 [B, S], restarting at 0 with each document.
        - **attention_mask** (Tensor) - [B, S, C], 1 = may attend.
        - **dropout_rows** (Tensor) - int32 [B, S], the dropout's key of each row, new in every step
          (training.schedule.dropout_rows); None: no dropout.
        - **places** (Tensor) - int32 [B, N, S, 3], places in the caches (model.cache); None: no cache.

    Outputs:
        Tensor [B, S, V], logits in the compute type.
    """

    def __init__(self, config: ModelConfig, seed: int | None = 0, operators: Operators | None = None) -> None:
        super().__init__()
        operators = operators or operators_for(config)
        self.config = config
        self.operators = operators
        self.norm_first = config.norm_order == "norm_then_query"
        self.word_embedding = Embedding(config.vocab_size, config.hidden_size, operators)
        self.position_embedding = Embedding(config.seq_length, config.hidden_size, operators)
        self.query_embedding = Embedding(config.seq_length, config.hidden_size, operators)
        self.embedding_dropout = operators.dropout(config.dropout, 0)
        self.mask = operators.mask(config.num_heads)
        self.blocks = nn.CellList([Block(config, operators, i) for i in range(config.num_layers - 1)])
        self.query_layer = Block(config, operators, config.num_layers - 1, asks_itself=False)
        self.final_norm = LayerNorm(config, operators)
        self.logits = Logits(operators)
        self.add = ops.Add()
        self.cast = ops.Cast()
        self.compute_dtype = operators.compute_dtype
        if seed is not None:
            initialize(self, seed)

    def hidden_states(self, input_ids, position_ids, attention_mask, dropout_rows=None, places=None, x=None):
        """Everything before the logits: [T, H] in the compute type. See `construct`; x: known word rows."""
        mask = self.mask(attention_mask)
        x = self.add(self.word_embedding(input_ids, x), self.position_embedding(position_ids))
        x = self.cast(self.embedding_dropout(x, dropout_rows), self.compute_dtype)
        for block in self.blocks:
            x = block(x, mask, None, dropout_rows, places)
        query = self.cast(self.query_embedding(position_ids), self.compute_dtype)
        if self.norm_first:
            return self.query_layer(self.final_norm(x), mask, query, dropout_rows, places)
        return self.final_norm(self.query_layer(x, mask, query, dropout_rows, places))

    def construct(self, input_ids, position_ids, attention_mask, dropout_rows=None, places=None) -> Tensor:
        x = self.hidden_states(input_ids, position_ids, attention_mask, dropout_rows, places)
        logits = self.logits(x, self.word_embedding.table)
        return logits.reshape((*input_ids.shape, -1))
