"""Encoder-decoder transformer in the manner of T5 (Raffel et al. 2020): every task is text to text, named by a prefix.

Positions enter as a learned bias of the attention scores that depends on the distance alone (section 2.1 there).

Shapes: B pairs, S source tokens, T target tokens, C width, H heads, V vocabulary.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from genai_core.families.blocks import DecoderBlock, EncoderBlock
from genai_core.families.encoder_decoder.interface import Decoded, EncoderDecoder
from genai_core.models.masks import causal_mask

BUCKETS, FARTHEST = 32, 128


@dataclass(frozen=True)
class T5Shape:
    vocab_size: int
    hidden_size: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    feed_forward_size: int
    source_tokens: int
    target_tokens: int


class Memory(NamedTuple):
    states: Tensor
    real: Tensor
    """(B, 1, 1, S)"""


class RelativeBias(nn.Module):
    """One learned number a head for each bucket of distances: exact when near, on a logarithmic scale when far."""

    def __init__(self, heads: int, both_ways: bool):
        super().__init__()
        self.table, self.both_ways = nn.Embedding(BUCKETS, heads), both_ways
        nn.init.zeros_(self.table.weight)

    def forward(self, length: int) -> Tensor:
        """(1, H, T, T)"""
        places = torch.arange(length, device=self.table.weight.device)
        distance = places[None, :] - places[:, None]      # of the key from the query
        return self.table(self._bucket(distance)).permute(2, 0, 1)[None]

    def _bucket(self, distance: Tensor) -> Tensor:
        buckets, first = BUCKETS, torch.zeros_like(distance)
        if self.both_ways:
            buckets //= 2
            first = (distance > 0).long() * buckets
        steps = distance.abs() if self.both_ways else (-distance).clamp(min=0)
        exact = buckets // 2
        far = exact + (torch.log(steps.clamp(min=1).float() / exact) / math.log(FARTHEST / exact)
                       * (buckets - exact)).long()
        return first + torch.where(steps < exact, steps, far.clamp(max=buckets - 1))


class T5(EncoderDecoder):
    def __init__(self, shape: T5Shape):
        super().__init__()
        self.shape = shape
        size, heads, inner = shape.hidden_size, shape.heads, shape.feed_forward_size
        self.embedding = nn.Embedding(shape.vocab_size, size)
        self.encoder_layers = nn.ModuleList(EncoderBlock(size, heads, inner) for _ in range(shape.encoder_layers))
        self.decoder_layers = nn.ModuleList(DecoderBlock(size, heads, inner) for _ in range(shape.decoder_layers))
        self.encoder_bias, self.decoder_bias = RelativeBias(heads, True), RelativeBias(heads, False)
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.head = nn.Linear(size, shape.vocab_size, bias=False)
        nn.init.normal_(self.embedding.weight, std=size ** -0.5)
        nn.init.normal_(self.head.weight, std=0.02)

    def encode(self, source: Tensor, real: Tensor) -> Memory:
        allowed, bias = real[:, None, None], self.encoder_bias(source.shape[1])
        x = self.embedding(source)
        for block in self.encoder_layers:
            x = block(x, allowed, bias)
        return Memory(self.encoder_norm(x), allowed)

    def decode(self, inputs: Tensor, memory: Memory, state: Tensor | None = None) -> Decoded:
        """The state is the ids so far: targets are short, so they are read again rather than kept layer by layer."""
        ids = inputs if state is None else torch.cat([state, inputs], dim=1)
        causal, bias = causal_mask(ids.shape[1], ids.device), self.decoder_bias(ids.shape[1])
        x = self.embedding(ids)
        weights = None
        for block in self.decoder_layers:
            x, weights = block(x, memory.states, memory.real, causal, bias)
        new = slice(ids.shape[1] - inputs.shape[1], None)
        attention = None if weights is None else weights.mean(1)[:, new]
        return Decoded(self.head(self.decoder_norm(x[:, new])), ids, attention)
