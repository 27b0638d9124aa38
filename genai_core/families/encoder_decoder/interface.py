"""What the trainer and the sampler need of a model that turns one sequence into another.

Shapes: B pairs, S source tokens, T target tokens, H hidden size, V vocabulary.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Decoded(NamedTuple):
    """What a decoder gives for target ids (B, T)."""

    logits: Tensor
    """Logits (B, T, V) of the token after each of them."""
    state: Any
    """What the decoder is given to go on from there."""
    attention: Tensor | None
    """Weights (B, T, S) of the source tokens; None for a model without attention."""


class EncoderDecoder(nn.Module, ABC):
    """p(y | x) = Π p(y_t | y_1 … y_{t−1}, x), x read by an encoder and y written by a decoder."""

    @abstractmethod
    def encode(self, source: Tensor, attention_mask: Tensor) -> Any:
        """What the decoder is given of source ids (B, S); the attention mask (B, S) is False on padding."""

    @abstractmethod
    def decode(self, inputs: Tensor, memory: Any, state: Any = None) -> Decoded:
        """Decode target ids (B, T), given the encoder's `memory`; `state` is that after the ids before them."""

    def forward(self, source: Tensor, attention_mask: Tensor, inputs: Tensor) -> Tensor:
        """Logits (B, T, V) of the token after each of the target ids `inputs` (B, T)."""
        return self.decode(inputs, self.encode(source, attention_mask)).logits


@torch.no_grad()
def greedy_decode(model: EncoderDecoder, source: Tensor, attention_mask: Tensor, start: int, end: int, longest: int
                  ) -> tuple[Tensor, Tensor | None]:
    """Target ids (B, T ≤ longest) by taking the likeliest token at each step, and their attention (B, T, S)."""
    memory = model.encode(source, attention_mask)
    token = torch.full((len(source), 1), start, device=source.device)
    ended = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    state, ids = None, []
    attention: list[Tensor] = []
    for _ in range(longest):
        decoded = model.decode(token, memory, state)
        state, token = decoded.state, decoded.logits[:, -1:].argmax(-1)
        ids.append(token)
        if decoded.attention is not None:
            attention.append(decoded.attention)
        ended |= token[:, 0] == end
        if ended.all():
            break
    return torch.cat(ids, dim=1), torch.cat(attention, dim=1) if attention else None
