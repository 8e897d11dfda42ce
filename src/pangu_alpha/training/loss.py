"""The training loss: -log p(next token), summed over the tokens that count.

Letters: B batch, S sequence.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import nn, ops

from pangu_alpha.model.pangu import PanguAlpha


class TokenLoss(nn.Cell):
    """The network together with the loss of every token.

    Inputs:
        - **input_ids**, **labels**, **position_ids**, **document_ids** (Tensor) - int32 [B, S].
        - **dropout_rows** (Tensor) - int32 [B, S], the dropout's key of each row, or None for no dropout.

    Outputs:
        Tensor [B, S], float32, nats per token.
    """

    def __init__(self, model: PanguAlpha) -> None:
        super().__init__(auto_prefix=False)
        self.model = model
        self.mask = model.operators.document_mask()
        self.cross_entropy = model.operators.cross_entropy(model.config.vocab_size)

    def construct(self, input_ids, labels, position_ids, document_ids, dropout_rows=None):
        mask = self.mask(document_ids)
        embedding, words = self.model.word_embedding, None
        table = embedding.table
        if embedding.fork is not None:
            words, table = embedding.fork(table, input_ids)
        hidden = self.model.hidden_states(input_ids, position_ids, mask, dropout_rows, None, words)
        return self.cross_entropy(hidden, table, labels.reshape((-1,))).reshape(labels.shape)


class BatchLoss(nn.Cell):
    """sum(nll * mask) of a micro-batch and of each of its rows, and sum(mask).

    Inputs:
        - **input_ids**, **labels** (Tensor) - int32 [B, S].
        - **loss_mask** (Tensor) - float32 [B, S], 1 = counts.
        - **position_ids**, **document_ids** (Tensor) - int32 [B, S].
        - **dropout_rows** (Tensor) - int32 [B, S], the dropout's key of each row; left out without dropout.

    Outputs:
        (float32 scalar, nats; float32 [B], nats; float32 scalar, tokens).
    """

    def __init__(self, token_loss: TokenLoss) -> None:
        super().__init__(auto_prefix=False)
        self.token_loss = token_loss
        self.mul = ops.Mul()
        self.sum = ops.ReduceSum()

    def construct(self, input_ids, labels, loss_mask, position_ids, document_ids, dropout_rows=None):
        nll = self.token_loss(input_ids, labels, position_ids, document_ids, dropout_rows)
        rows = self.sum(self.mul(nll, loss_mask), 1)
        return self.sum(rows, 0), rows, self.sum(loss_mask)


class MicroBatchLoss(nn.Cell):
    """sum(nll * mask) of one micro-batch, for MindSpore to split; it is compiled once and called for each.

    Inputs:
        As for BatchLoss.

    Outputs:
        Tensor, float32 scalar, nats.
    """

    @ms.lazy_inline
    def __init__(self, token_loss: TokenLoss) -> None:
        super().__init__(auto_prefix=False)
        self.token_loss = token_loss
        self.mul = ops.Mul()
        self.sum = ops.ReduceSum()

    def construct(self, input_ids, labels, loss_mask, position_ids, document_ids, dropout_rows=None):
        nll = self.token_loss(input_ids, labels, position_ids, document_ids, dropout_rows)
        return self.sum(self.mul(nll, loss_mask))
