"""Batches of training tokens; which tokens a step sees depends on the seed and the step's number alone."""

import numpy as np
import torch
from torch import Tensor

from genai_core.data.token_files import TokenFile


class Windows:
    """Windows of consecutive tokens from a token file, each epoch in another order and from another first token."""

    def __init__(self, file: TokenFile, length: int, batch_size: int, seed: int, device: torch.device):
        self.ids, self.length, self.batch_size, self.seed, self.device = file.ids, length, batch_size, seed, device
        self.windows = (len(file.ids) - 1) // length - 1       # one less leaves room for the epoch's offset
        self._epoch, self._order, self._offset = -1, np.empty(0, np.int64), 0

    def batch(self, step: int) -> dict[str, Tensor]:
        """`ids` and `targets`, both (B, T) int64: targets are the ids one position later."""
        rows = [self._window(number) for number in range(step * self.batch_size, (step + 1) * self.batch_size)]
        tokens = torch.from_numpy(np.stack(rows).astype(np.int64)).to(self.device)
        return {"ids": tokens[:, :-1].contiguous(), "targets": tokens[:, 1:].contiguous()}

    def _window(self, number: int) -> np.ndarray:
        epoch, position = divmod(number, self.windows)
        if epoch != self._epoch:
            generator = np.random.default_rng([self.seed, epoch])
            self._epoch, self._order = epoch, generator.permutation(self.windows)
            self._offset = int(generator.integers(self.length))
        start = int(self._order[position]) * self.length + self._offset
        return self.ids[start:start + self.length + 1]
