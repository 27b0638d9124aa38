"""Bidirectional encoder in the manner of BERT (Devlin et al. 2019): every token sees all others, positions are learned.

Shapes: B texts, T tokens, C width, V vocabulary, L labels.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from genai_core.families.blocks import EncoderBlock


@dataclass(frozen=True)
class BertShape:
    vocab_size: int
    hidden_size: int
    heads: int
    layers: int
    feed_forward_size: int
    text_tokens: int


class Bert(nn.Module):
    """The encoder, with a head that fills in masked tokens."""

    def __init__(self, shape: BertShape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.positions = nn.Embedding(shape.text_tokens, shape.hidden_size)
        self.layers = nn.ModuleList(EncoderBlock(shape.hidden_size, shape.heads, shape.feed_forward_size)
                                    for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.hidden_size)
        self.head = nn.Linear(shape.hidden_size, shape.vocab_size)
        for part in (self.embedding, self.positions, self.head):
            nn.init.normal_(part.weight, std=0.02)

    def hidden(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Hidden states (B, T, C) of token ids (B, T); the attention mask (B, T) is False on padding."""
        x = self.embedding(ids) + self.positions.weight[:ids.shape[1]]
        for block in self.layers:
            x = block(x, attention_mask[:, None, None])
        return self.norm(x)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, T, V) of the token at each position."""
        return self.head(self.hidden(ids, attention_mask))


class BertClassifier(nn.Module):
    """A linear layer on the mean of the encoder's states (Reimers & Gurevych 2019 found it better than one token's)."""

    def __init__(self, encoder: Bert, labels: int):
        super().__init__()
        self.encoder = encoder
        self.shape = encoder.shape
        self.classifier = nn.Linear(encoder.shape.hidden_size, labels)

    def features(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Mean of the hidden states (B, C), padding left out."""
        weights = attention_mask[:, :, None].float()
        return (self.encoder.hidden(ids, attention_mask).float() * weights).sum(1) / weights.sum(1)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, L)."""
        return self.classifier(self.features(ids, attention_mask))
