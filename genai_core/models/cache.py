"""What an attention model remembers between calls."""

from typing import Any

import torch
from torch import Tensor


class KeyValueCache:
    """Keys and values of the tokens read so far, a sequence in each row and each of its own length.

    Its shape is fixed, so that a step over it can be compiled once: a query is given all places, and a mask hides
    those that its row has not filled. Shapes: B rows, T new tokens, S places, K key-value heads, D head size.
    """

    def __init__(self, layers: int, batch: int, heads: int, capacity: int, head_dim: int, like: Tensor):
        """Room for `capacity` tokens in each row, on the device and in the precision of `like`."""
        self.keys = [like.new_zeros(batch, heads, capacity, head_dim) for _ in range(layers)]
        self.values = [like.new_zeros(batch, heads, capacity, head_dim) for _ in range(layers)]
        self.lengths = torch.zeros(batch, dtype=torch.long, device=like.device)
        """Tokens (B,) in each row."""
        self._places = torch.arange(capacity, device=like.device)

    def positions(self, count: int) -> Tensor:
        """Position ids (B, T) of the next `count` tokens."""
        return self.lengths[:, None] + self._places[:count]

    def mask(self, count: int) -> Tensor:
        """Which places each of the next `count` tokens may attend to: (B, 1, T, S), True up to its own."""
        return self._places <= self.positions(count)[:, None, :, None]

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values (B, K, T, D) of new tokens; those of all places (B, K, S, D). Raises RuntimeError where
        they do not fit."""
        places = self.positions(key.shape[2])[:, None, :, None].expand_as(key)
        self.keys[layer].scatter_(2, places, key.to(self.keys[layer].dtype))
        self.values[layer].scatter_(2, places, value.to(self.values[layer].dtype))
        return self.keys[layer], self.values[layer]

    def grow(self, counts: Tensor | int) -> None:
        """The rows hold so many tokens more, or less."""
        self.lengths += counts

    def put(self, rows: Tensor, other: Any, of: Tensor, places: int | None = None) -> None:
        """Begin rows anew with those of another cache of no more places: row `rows[i]` with its row `of[i]`, or with
        the first `places` of it."""
        for own, theirs in zip(self.keys + self.values, other.keys + other.values, strict=True):
            own[rows, :, :places or theirs.shape[2]] = theirs[of, :, :places]
        self.lengths[rows] = other.lengths[of]
