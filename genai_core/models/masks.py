"""Attention masks: True where a query may attend to a key, broadcastable to (B, H, T, S).

Shapes: B sequences, H heads, T queries, S keys. An attention mask (B, T) is False on padding; the position ids (B, T)
that go with it count the tokens of a sequence from 0, padding left out.
"""

import torch
from torch import Tensor


def causal_mask(length: int, device: torch.device, past: int = 0) -> Tensor:
    """Each of the `length` queries sees itself and what is before it, `past` keys of a cache included: (1, 1, T, S)."""
    mask = torch.ones(length, past + length, dtype=torch.bool, device=device)
    return mask.tril(diagonal=past)[None, None]


def left_padded_mask(attention_mask: Tensor) -> Tensor:
    """Causal mask (B, 1, T, T) of sequences that are padded on the left.

    A padding position sees itself, so that its softmax is not over nothing.
    """
    length, device = attention_mask.shape[1], attention_mask.device
    itself = torch.eye(length, dtype=torch.bool, device=device)
    return causal_mask(length, device) & (attention_mask[:, None, None] | itself)


def packed_mask(segments: Tensor) -> Tensor:
    """Causal mask (B, 1, T, T) of rows that hold several sequences, none of which sees another; `segments` (B, T) has
    the number of the sequence that each token belongs to."""
    same = segments[:, None, :, None] == segments[:, None, None, :]
    return causal_mask(segments.shape[1], segments.device) & same


def position_ids_of(attention_mask: Tensor) -> Tensor:
    """Position ids (B, T): 0 at the first token of a sequence, and on the padding to its left."""
    return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
