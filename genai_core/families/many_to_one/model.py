"""Many to one: recurrent layers read a text, and a linear layer classifies it by their last state.

Shapes: B texts, T tokens, L labels.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from genai_core.families.recurrent.model import RecurrentStack


@dataclass(frozen=True)
class ManyToOneShape:
    cell: str
    vocab_size: int
    embedding_size: int
    hidden_size: int
    labels: int
    text_tokens: int
    dropout: float


class ManyToOne(nn.Module):
    """Embedding, one recurrent layer, linear classifier."""

    def __init__(self, shape: ManyToOneShape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab_size, shape.embedding_size)
        self.dropout = nn.Dropout(shape.dropout)
        self.recurrent = RecurrentStack(shape.cell, shape.embedding_size, shape.hidden_size, 1)
        self.classifier = nn.Linear(shape.hidden_size, shape.labels)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, L) for token ids and attention mask, both (B, T); padding leaves the state as it was."""
        _, states = self.recurrent(self.dropout(self.embedding(ids)), None, attention_mask)
        return self.classifier(states[-1][0])
