"""Batches: which examples a step sees, a function of the seed and the step's number alone, and sequences of unequal
length as one tensor."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genai_core.data.tokens.token_files import TokenFile
from genai_core.errors import InputError

IGNORED = -100
"""Target of a position that no loss is taken of."""
_ROUNDS = 6


def shuffled(positions: np.ndarray, count: int, *key: int) -> np.ndarray:
    """Where a pseudo-random permutation of `count` things, chosen by `key`, puts those at `positions`, int64.

    A Feistel network (Luby & Rackoff 1988) on the least even number of bits that holds `count`, walked until a value is
    below it: each place is computed for itself, so that an order of any length takes no memory.
    """
    if not 0 < count < 2**62:
        raise ValueError(f"a permutation of {count} things")
    half = np.uint64(max(1, -(-(count - 1).bit_length() // 2)))
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = np.random.SeedSequence(key).generate_state(_ROUNDS, np.uint64)
    values = np.asarray(positions).astype(np.uint64)
    outside = np.ones(values.shape, bool)
    while outside.any():
        left, right = values[outside] >> half, values[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (_mixed(right + round_key) & mask)
        values[outside] = (left << half) | right
        outside &= values >= count
    return values.astype(np.int64)


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's memory on a device; to a GPU it is on its way while the host goes on."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Windows:
    """Windows of consecutive tokens from a token file, each epoch in another order and from another first token."""

    def __init__(self, file: TokenFile, length: int, batch_size: int, seed: int, device: torch.device):
        self.ids = file.ids
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.windows = (len(file.ids) - 1) // length - 1       # one less leaves room for the epoch's offset

    def batch(self, step: int) -> dict[str, Tensor]:
        """`ids` and `targets`, both (B, T) int64: targets are the ids one position later."""
        starts = self._starts(np.arange(step * self.batch_size, (step + 1) * self.batch_size))
        rows = [self.ids[start:start + self.length + 1] for start in starts.tolist()]
        tokens = on_device(torch.from_numpy(np.stack(rows).astype(np.int64)), self.device)
        return {"ids": tokens[:, :-1].contiguous(), "targets": tokens[:, 1:].contiguous()}

    def _starts(self, numbers: np.ndarray) -> np.ndarray:
        """First tokens of the windows that come at these places of training, int64 (B,)."""
        starts = np.empty(len(numbers), np.int64)
        epochs = numbers // self.windows
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            order = shuffled(numbers[here] % self.windows, self.windows, self.seed, epoch)
            starts[here] = order * self.length + np.random.default_rng([self.seed, epoch]).integers(self.length)
        return starts


class WeightedWindows(Windows):
    """Windows of the sources of a token file, each source as often as its weight says.

    An epoch has `weight` times the windows of each source. Every pass over a source visits each of its windows once,
    whatever the weights, and where training stands follows from the number of the window alone.
    """

    def __init__(self, file: TokenFile, weights: Mapping[str, float], length: int, batch_size: int, seed: int,
                 device: torch.device):
        """Raises InputError for a weight of a source that the file does not have, and when no window is left."""
        super().__init__(file, length, batch_size, seed, device)
        if unknown := [name for name in weights if name not in file.sources]:
            raise InputError(f"pretrain.weights: there is no source {unknown[0]!r} in the training tokens; there are "
                             f"{', '.join(file.sources)}")
        self.first = np.array([start for start, _ in file.sources.values()])
        self.of_source = np.array([max(0, (end - start - 1) // length - 1) for start, end in file.sources.values()])
        wanted = np.array([weights.get(name, 1.0) for name in file.sources])
        self.in_epoch = np.rint(wanted * self.of_source).astype(np.int64)
        self.windows = int(self.in_epoch.sum())
        if not self.windows:
            raise InputError("pretrain.weights: no window of any source is left to train on")

    def _starts(self, numbers: np.ndarray) -> np.ndarray:
        places = np.concatenate([shuffled(numbers[numbers // self.windows == epoch] % self.windows, self.windows,
                                          self.seed, epoch) for epoch in np.unique(numbers // self.windows).tolist()])
        bounds = np.cumsum(self.in_epoch)
        source = np.searchsorted(bounds, places, side="right")
        # of each window its number among all windows of its source, from the first epoch on
        count = numbers // self.windows * self.in_epoch[source] + places - (bounds - self.in_epoch)[source]
        starts = np.empty(len(numbers), np.int64)
        for at, (number, windows) in enumerate(zip(source.tolist(), self.of_source[source].tolist(), strict=True)):
            in_order, position = divmod(int(count[at]), windows)
            key = (self.seed, number, in_order)
            offset = int(np.random.default_rng(key).integers(self.length))
            window = int(shuffled(np.array([position]), windows, *key)[0])
            starts[at] = self.first[number] + window * self.length + offset
        return starts


def random_windows(file: TokenFile, count: int, length: int, seed: int) -> np.ndarray:
    """Ids (N, T + 1) of at most `count` windows of a token file that do not overlap, in random order."""
    windows = max(0, -(-(len(file.ids) - length) // length))
    if not windows:
        return np.empty((0, length + 1), file.ids.dtype)
    chosen = shuffled(np.arange(min(count, windows)), windows, seed) * length
    return file.ids[chosen[:, None] + np.arange(length + 1)]


def epoch_order(count: int, epoch: int, seed: int) -> np.ndarray:
    """Order (count,) in which an epoch visits the examples."""
    return shuffled(np.arange(count), count, seed, epoch)


def epoch_rows(count: int, step: int, batch_size: int, seed: int) -> np.ndarray:
    """Indices (B,) of the examples that a step takes of `count`: each epoch all of them once, in an order of its own.
    """
    numbers = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = numbers // count
    rows = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = shuffled(numbers[here] % count, count, seed, int(epoch))
    return rows


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
