"""The training loss: -log p(next token), summed over the tokens that count.

Letters: B batch, S sequence.
"""

from __future__ import annotations

from mindspore import nn

from pangu_alpha.model.mask import DocumentMask
from pangu_alpha.model.pangu import PanguAlpha


class TokenLoss(nn.Cell):
    """The network and the loss of every token.

    Args:
        model: A PanguAlpha.

    Inputs:
        - **input_ids**, **labels**, **position_ids**, **document_ids** (Tensor) - int32 [B, S].
        - **dropout_rows** (Tensor) - int32 [B, S], the dropout's key of each row, or None.

    Outputs:
        Tensor [B, S], float32, nats a token.
    """

    def __init__(self, model: PanguAlpha) -> None:
        super().__init__(auto_prefix=False)
        self.model = model
        self.mask = DocumentMask()
        self.cross_entropy = model.operators.cross_entropy(model.config.vocab_size)

    def construct(self, input_ids, labels, position_ids, document_ids, dropout_rows=None):
        mask = self.mask(document_ids)
        hidden = self.model.hidden_states(input_ids, position_ids, mask, dropout_rows)
        table = self.model.word_embedding.table
        return self.cross_entropy(hidden, table, labels.reshape((-1,))).reshape(labels.shape)
