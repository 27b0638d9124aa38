"""A small causal transformer with a choice of how it knows where a token stands.

    sinusoidal   x_t + P_t, P_{t,2i} = sin(t / 10000^{2i/C}), P_{t,2i+1} = cos(…)     (Vaswani et al. 2017, section 3.5)
    learned      x_t + P_t, P a table of parameters                                  (Gehring et al. 2017)
    rotary       queries and keys turned by an angle that grows with t               (Su et al. 2021, eq. 15)
    none         nothing: only the causal mask tells the order                       (Kazemnejad et al. 2023)

Shapes: B sequences, T tokens, C width, H heads, D = C / H, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genai_core.families.blocks import FeedForward, split_heads
from genai_core.models.cache import KeyValueCache
from genai_core.models.flops import flops_per_token, matrix_weights
from genai_core.models.language_model import LanguageModel
from genai_core.models.transformer import attend, rotary_angles, rotate


@dataclass(frozen=True)
class PositionalShape:
    positions: str
    """`sinusoidal`, `learned`, `rotary` or `none`."""
    vocab_size: int
    hidden_size: int
    heads: int
    layers: int
    feed_forward_size: int
    context_length: int
    theta: float = 10_000.0
    """Base of the rotary angles."""


def sinusoids(position_ids: Tensor, size: int) -> Tensor:
    """P (B, T, C) at positions (B, T)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(0, size, 2, device=position_ids.device) / size)
    angles = position_ids[:, :, None].float() * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(2)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)), with a cache and any of the positions."""

    def __init__(self, shape: PositionalShape, layer: int):
        super().__init__()
        size = shape.hidden_size
        self.layer = layer
        self.heads = shape.heads
        self.query = nn.Linear(size, size, bias=False)
        self.key = nn.Linear(size, size, bias=False)
        self.value = nn.Linear(size, size, bias=False)
        self.out = nn.Linear(size, size, bias=False)
        self.feed_forward = FeedForward(size, shape.feed_forward_size)
        self.attention_norm = nn.LayerNorm(size)
        self.feed_forward_norm = nn.LayerNorm(size)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None, mask: Tensor | None,
                cache: KeyValueCache | None) -> Tensor:
        normed = self.attention_norm(x)
        query = split_heads(self.query(normed), self.heads)      # (B, H, T, D)
        key = split_heads(self.key(normed), self.heads)
        value = split_heads(self.value(normed), self.heads)
        if angles is not None:
            query, key = rotate(query, *angles), rotate(key, *angles)
        if cache is not None:
            key, value = cache.extend(self.layer, key, value)
        x = x + self.out(attend(query, key, value, mask).transpose(1, 2).flatten(2))
        return x + self.feed_forward(self.feed_forward_norm(x))


class Body(nn.Module):
    """The blocks, and the norm after them."""

    def __init__(self, shape: PositionalShape):
        super().__init__()
        self.layers = nn.ModuleList(Block(shape, layer) for layer in range(shape.layers))
        self.norm = nn.LayerNorm(shape.hidden_size)


class PositionalLanguageModel(LanguageModel):
    """The transformer: token embedding, blocks, norm, linear head."""

    def __init__(self, shape: PositionalShape):
        super().__init__()
        self.config = self.shape = shape
        self.embedding = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.table = nn.Embedding(shape.context_length, shape.hidden_size) if shape.positions == "learned" else None
        self.body = Body(shape)
        self.head = nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    @property
    def context_length(self) -> int:
        return self.shape.context_length

    def hidden(self, ids: Tensor, position_ids: Tensor | None = None, mask: Tensor | None = None,
               cache: KeyValueCache | None = None) -> Tensor:
        """Hidden states (B, T, C); a position past the table of a learned embedding takes its last row."""
        length = ids.shape[1]
        if position_ids is None:
            position_ids = cache.positions(length) if cache is not None else \
                torch.arange(length, device=ids.device)[None].expand(len(ids), -1)
        if mask is None and cache is not None:
            mask = cache.mask(length)
        x, angles = self.embedding(ids), None
        if self.shape.positions == "sinusoidal":
            x = x + 0.02 * sinusoids(position_ids, self.shape.hidden_size)      # as small as the embeddings begin
        elif self.table is not None:
            x = x + self.table(position_ids.clamp(max=self.shape.context_length - 1))
        elif self.shape.positions == "rotary":
            angles = rotary_angles(position_ids, self.shape.hidden_size // self.shape.heads, self.shape.theta)
        for block in self.body.layers:
            x = block(x, angles, mask, cache)
        if cache is not None:
            cache.grow(length)
        return self.body.norm(x)

    def logits(self, states: Tensor) -> Tensor:
        return self.head(states)

    def new_cache(self, batch: int, capacity: int) -> KeyValueCache:
        shape = self.shape
        return KeyValueCache(shape.layers, batch, shape.heads, capacity, shape.hidden_size // shape.heads,
                             like=self.head.weight)

    def training_flops_per_token(self, length: int) -> float:
        return flops_per_token(matrix_weights(self, "embedding", "table"), self.shape.layers, self.shape.hidden_size,
                               length)
