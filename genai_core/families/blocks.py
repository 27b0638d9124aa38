"""Blocks of the encoders and encoder-decoders: attention between any two sequences, and what goes around it.

Shapes: B sequences, T queries, S keys, C width, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """softmax(QKᵀ/√d + bias) V in H heads (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, size: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(size, size, bias=False), nn.Linear(size, size, bias=False)
        self.value, self.out = nn.Linear(size, size, bias=False), nn.Linear(size, size, bias=False)

    def forward(self, x: Tensor, memory: Tensor, allowed: Tensor, bias: Tensor | None = None
                ) -> tuple[Tensor, Tensor]:
        """What x (B, T, C) takes from `memory` (B, S, C) where `allowed` (B or 1, 1, T or 1, S) is True, and the
        weights (B, H, T, S); `bias` is added to the scores."""
        query, key, value = (self._split(layer(part)) for layer, part in (
            (self.query, x), (self.key, memory), (self.value, memory)))
        scores = (query @ key.transpose(-2, -1)).float() * query.shape[-1] ** -0.5
        if bias is not None:
            scores = scores + bias
        weights = torch.softmax(scores.masked_fill(~allowed, float("-inf")), dim=-1).to(value.dtype)
        return self.out((weights @ value).transpose(1, 2).flatten(2)), weights

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """W₂ GELU(W₁ x) (Hendrycks & Gimpel 2016)."""

    def __init__(self, size: int, inner: int):
        super().__init__()
        self.enter, self.leave = nn.Linear(size, inner), nn.Linear(inner, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.gelu(self.enter(x)))


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)): normalised before, so that the gradient has a straight
    way (Xiong et al. 2020)."""

    def __init__(self, size: int, heads: int, inner: int):
        super().__init__()
        self.attention, self.feed_forward = MultiHeadAttention(size, heads), FeedForward(size, inner)
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(size), nn.LayerNorm(size)

    def forward(self, x: Tensor, allowed: Tensor, bias: Tensor | None = None) -> Tensor:
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, allowed, bias)[0]
        return x + self.feed_forward(self.feed_forward_norm(x))


class DecoderBlock(nn.Module):
    """An encoder's block with a look at the encoder between its two parts."""

    def __init__(self, size: int, heads: int, inner: int):
        super().__init__()
        self.attention, self.look = MultiHeadAttention(size, heads), MultiHeadAttention(size, heads)
        self.feed_forward = FeedForward(size, inner)
        self.attention_norm, self.look_norm, self.feed_forward_norm = (nn.LayerNorm(size) for _ in range(3))

    def forward(self, x: Tensor, memory: Tensor, real: Tensor, causal: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, causal, bias)[0]
        seen, weights = self.look(self.look_norm(x), memory, real)
        x = x + seen
        return x + self.feed_forward(self.feed_forward_norm(x)), weights


def causal_mask(length: int, device: torch.device) -> Tensor:
    """True where a query may look: at itself and before, (1, 1, T, T)."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
