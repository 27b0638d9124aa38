"""Batches: which examples a step sees, a function of the seed and the step's number alone, and sequences of unequal
length as one tensor."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genai_core.data.token_files import TokenFile


class Windows:
    """Windows of consecutive tokens from a token file, each epoch in another order and from another first token."""

    def __init__(self, file: TokenFile, length: int, batch_size: int, seed: int, device: torch.device):
        self.ids = file.ids
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.windows = (len(file.ids) - 1) // length - 1       # one less leaves room for the epoch's offset
        self._epoch = -1
        self._order = np.empty(0, np.int64)
        self._offset = 0

    def batch(self, step: int) -> dict[str, Tensor]:
        """`ids` and `targets`, both (B, T) int64: targets are the ids one position later."""
        rows = [self._window(number) for number in range(step * self.batch_size, (step + 1) * self.batch_size)]
        tokens = torch.from_numpy(np.stack(rows).astype(np.int64)).to(self.device)
        return {"ids": tokens[:, :-1].contiguous(), "targets": tokens[:, 1:].contiguous()}

    def _window(self, number: int) -> np.ndarray:
        epoch, position = divmod(number, self.windows)
        if epoch != self._epoch:
            generator = np.random.default_rng([self.seed, epoch])
            self._epoch = epoch
            self._order = generator.permutation(self.windows)
            self._offset = int(generator.integers(self.length))
        start = int(self._order[position]) * self.length + self._offset
        return self.ids[start:start + self.length + 1]


def random_windows(file: TokenFile, count: int, length: int, seed: int) -> np.ndarray:
    """Ids (N, T + 1) of at most `count` windows of a token file that do not overlap, in random order."""
    starts = np.arange(0, len(file.ids) - length, length)
    chosen = np.random.default_rng(seed).permutation(starts)[:count]
    return file.ids[chosen[:, None] + np.arange(length + 1)]


def epoch_order(count: int, epoch: int, seed: int) -> np.ndarray:
    """Order (count,) in which an epoch visits the examples."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def epoch_rows(count: int, step: int, batch_size: int, seed: int) -> np.ndarray:
    """Indices (B,) of the examples that a step takes of `count`: each epoch all of them once, in an order of its own.
    """
    numbers = range(step * batch_size, (step + 1) * batch_size)
    orders = {number // count: epoch_order(count, number // count, seed) for number in numbers}
    return np.array([orders[number // count][number % count] for number in numbers])


def pad(rows: Sequence[list[int]], pad_id: int, side: Literal["left", "right"], length: int | None = None
        ) -> tuple[Tensor, Tensor]:
    """Ids (B, T) of sequences of unequal length and their attention mask (B, T), False on padding.

    T is `length`, by default that of the longest sequence.
    """
    longest = length or max(map(len, rows))
    lengths = torch.tensor([len(row) for row in rows])
    places = torch.arange(longest)[None]
    if side == "left":
        ids = [[pad_id] * (longest - len(row)) + row for row in rows]
        return torch.tensor(ids), places >= (longest - lengths)[:, None]
    ids = [row + [pad_id] * (longest - len(row)) for row in rows]
    return torch.tensor(ids), places < lengths[:, None]
