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


class PromptCache:
    """Keys and values of prompts, with their gradients, that several sequences go on from: a prompt is read once,
    whatever the number of its completions. Shapes: N prompts, P places of each, B sequences, T tokens; else as above.

    First it is given to a call on the prompts, then, after `repeat`, to one on what follows them.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._prompts: dict[int, tuple[Tensor, Tensor]] = {}
        self._rows: Tensor | None = None
        self._length = 0

    def repeat(self, rows: Tensor) -> None:
        """Sequence b goes on from prompt `rows[b]` (B,)."""
        self._rows = rows

    def positions(self, count: int) -> Tensor:
        """Places (1, T) of the next `count` tokens, the padding of prompts counted."""
        return torch.arange(self._length, self._length + count, device=self._device)[None]

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep those of prompts (N, K, P, D); those of prompts and what follows (B, K, P + T, D)."""
        if self._rows is None:
            self._prompts[layer] = key, value
            return key, value
        before = self._prompts[layer]
        return torch.cat([before[0][self._rows], key], 2), torch.cat([before[1][self._rows], value], 2)

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """What `transformers` calls `extend`."""
        return self.extend(layer_idx, key, value)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0      # positions are always given

    def grow(self, count: int) -> None:
        self._length += count
