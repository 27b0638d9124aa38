"""What the trainer and the sampler need of a model that turns one sequence into another.

Shapes: B pairs, S source tokens, T target tokens, H hidden size, V vocabulary.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Decoded(NamedTuple):
    logits: Tensor
    """(B, T, V)"""
    state: Any
    """What the model needs to go on."""
    attention: Tensor | None
    """Where each target token looked, (B, T, S); None for a model that cannot look."""


class EncoderDecoder(nn.Module, ABC):
    """p(y | x) = Π p(y_t | y_1 … y_{t−1}, x), x read by an encoder and y written by a decoder."""

    @abstractmethod
    def encode(self, source: Tensor, real: Tensor) -> Any:
        """What the decoder is given of source ids (B, S), `real` being False on padding."""

    @abstractmethod
    def decode(self, inputs: Tensor, memory: Any, state: Any = None) -> Decoded:
        """Logits of what follows each of the target ids `inputs` (B, T), the ones before them being in `state`."""

    def forward(self, source: Tensor, real: Tensor, inputs: Tensor) -> Tensor:
        """Logits (B, T, V)."""
        return self.decode(inputs, self.encode(source, real)).logits


@torch.no_grad()
def write(model: EncoderDecoder, source: Tensor, real: Tensor, start: int, end: int, longest: int
          ) -> tuple[Tensor, Tensor | None]:
    """The likeliest next token, again and again: ids (B, ≤ longest), and where they looked (B, ≤ longest, S)."""
    memory = model.encode(source, real)
    token = torch.full((len(source), 1), start, device=source.device)
    ended = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    state, ids, looks = None, [], []
    for _ in range(longest):
        decoded = model.decode(token, memory, state)
        state, token = decoded.state, decoded.logits[:, -1:].argmax(-1)
        ids.append(token)
        looks.append(decoded.attention)
        ended |= token[:, 0] == end
        if ended.all():
            break
    attention = torch.cat([look for look in looks if look is not None], 1) if looks[0] is not None else None
    return torch.cat(ids, dim=1), attention
