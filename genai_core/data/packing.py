"""Packing chats into rows of equal length without letting one see another."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

IGNORED = -100


@dataclass(frozen=True)
class PackedRows:
    """R rows of T tokens. `targets` is IGNORED where nothing is to be learned; `segments` counts the chats of a row
    from 1, and is 0 on padding; `positions` starts at 0 in every chat."""

    ids: np.ndarray
    targets: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    chats_cut: int
    """Number of chats that lost their beginning because they are longer than a row."""
    chats_left_out: int
    """Number of chats of which no target was left, be it that they had none."""

    def take(self, rows: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        arrays = {"ids": self.ids, "targets": self.targets, "segments": self.segments, "positions": self.positions}
        return {name: torch.from_numpy(array[rows].astype(np.int64)).to(device) for name, array in arrays.items()}


def pack(chats: list[tuple[list[int], list[bool]]], length: int, pad_id: int) -> PackedRows:
    """First-fit-decreasing packing of (ids, spoken) chats; a chat longer than a row loses its beginning.

    Chats without a target token are left out, and both kinds are counted. The target of a position is the next token,
    where that one is spoken.
    """
    longest = length + 1      # the last token is a target alone
    cut = [(ids[-longest:], spoken[-longest:]) for ids, spoken in chats if any(spoken[-longest:][1:])]
    too_long = sum(len(ids) > longest for ids, spoken in chats if any(spoken[-longest:][1:]))
    order = sorted(range(len(cut)), key=lambda index: -len(cut[index][0]))
    rows: list[list[int]] = []
    room: list[int] = []
    by_room: dict[int, list[int]] = {}
    for index in order:
        needed = len(cut[index][0]) - 1
        fitting = [size for size, waiting in by_room.items() if size >= needed and waiting]
        if fitting:
            row = by_room[min(fitting)].pop()
        else:
            row = len(rows)
            rows.append([])
            room.append(length)
        rows[row].append(index)
        room[row] -= needed
        by_room.setdefault(room[row], []).append(row)
    arrays = {name: np.zeros((len(rows), length), np.int32) for name in ("segments", "positions")}
    ids = np.full((len(rows), length), pad_id, np.int32)
    targets = np.full((len(rows), length), IGNORED, np.int32)
    for row, members in enumerate(rows):
        start = 0
        for segment, index in enumerate(members, start=1):
            tokens, spoken = cut[index]
            place = slice(start, start + len(tokens) - 1)
            ids[row, place] = tokens[:-1]
            targets[row, place] = np.where(spoken[1:], tokens[1:], IGNORED)
            arrays["segments"][row, place] = segment
            arrays["positions"][row, place] = np.arange(len(tokens) - 1)
            start += len(tokens) - 1
    return PackedRows(ids, targets, arrays["segments"], arrays["positions"], too_long, len(chats) - len(cut))


def packed_mask(segments: Tensor) -> Tensor:
    """Where each position of (B, T) may look, (B, 1, T, T): back, and within its own chat."""
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    return (causal & (segments[:, :, None] == segments[:, None, :]))[:, None]


def epoch_order(rows: int, epoch: int, seed: int) -> np.ndarray:
    """The order in which an epoch visits rows: a function of the seed and the epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def epoch_rows(count: int, step: int, batch_size: int, seed: int) -> np.ndarray:
    """Which of `count` examples a step takes, (B,): each epoch all of them once, in an order of its own."""
    numbers = range(step * batch_size, (step + 1) * batch_size)
    orders = {number // count: epoch_order(count, number // count, seed) for number in numbers}
    return np.array([orders[number // count][number % count] for number in numbers])
