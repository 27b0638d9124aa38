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
        self.query = nn.Linear(size, size, bias=False)
        self.key = nn.Linear(size, size, bias=False)
        self.value = nn.Linear(size, size, bias=False)
        self.out = nn.Linear(size, size, bias=False)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attention of x (B, T, C) to `memory` (B, S, C): the output (B, T, C) and the weights (B, H, T, S).

        `mask` (B or 1, 1, T or 1, S) is True where a query may attend to a key; `bias` is added to the scores.
        """
        query = split_heads(self.query(x), self.heads)      # (B, H, T, D)
        key = split_heads(self.key(memory), self.heads)
        value = split_heads(self.value(memory), self.heads)
        scores = (query @ key.transpose(-2, -1)).float() * query.shape[-1] ** -0.5
        if bias is not None:
            scores = scores + bias
        weights = torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1).to(value.dtype)
        return self.out((weights @ value).transpose(1, 2).flatten(2)), weights


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, C) as (B, H, T, C / H)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """W₂ GELU(W₁ x) (Hendrycks & Gimpel 2016)."""

    def __init__(self, size: int, inner: int):
        super().__init__()
        self.enter = nn.Linear(size, inner)
        self.leave = nn.Linear(inner, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.gelu(self.enter(x)))


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)): the norm comes first, so that gradients reach every layer
    by the residual stream alone (Xiong et al. 2020)."""

    def __init__(self, size: int, heads: int, inner: int):
        super().__init__()
        self.attention = MultiHeadAttention(size, heads)
        self.feed_forward = FeedForward(size, inner)
        self.attention_norm = nn.LayerNorm(size)
        self.feed_forward_norm = nn.LayerNorm(size)

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, mask, bias)[0]
        return x + self.feed_forward(self.feed_forward_norm(x))


class DecoderBlock(nn.Module):
    """Causal self-attention, cross-attention to the encoder's states, feed-forward, each added to what it reads."""

    def __init__(self, size: int, heads: int, inner: int):
        super().__init__()
        self.attention = MultiHeadAttention(size, heads)
        self.look = MultiHeadAttention(size, heads)      # the cross-attention, by the name that stored weights have
        self.feed_forward = FeedForward(size, inner)
        self.attention_norm = nn.LayerNorm(size)
        self.look_norm = nn.LayerNorm(size)
        self.feed_forward_norm = nn.LayerNorm(size)

    def forward(self, x: Tensor, memory: Tensor, memory_mask: Tensor, mask: Tensor, bias: Tensor
                ) -> tuple[Tensor, Tensor]:
        """Output (B, T, C) and the weights of the cross-attention to `memory` (B, H, T, S)."""
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, mask, bias)[0]
        attended, weights = self.look(self.look_norm(x), memory, memory_mask)
        x = x + attended
        return x + self.feed_forward(self.feed_forward_norm(x)), weights
