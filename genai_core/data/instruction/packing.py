"""Packing chats into rows of equal length without letting one see another, and rows of plain text beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from genai_core.data.chat import end_of
from genai_core.data.tokens.batches import IGNORED, on_device


@dataclass(frozen=True)
class PackedRows:
    """R rows of T tokens: five arrays (R, T), and what became of the chats that did not fit."""

    ids: np.ndarray
    targets: np.ndarray
    """The next token, or IGNORED where nothing is to be learned."""
    segments: np.ndarray
    """Number of the chat in its row, from 1; 0 on padding."""
    position_ids: np.ndarray
    """Number of the token in its chat, from 0."""
    weights: np.ndarray
    """What the loss of each target is multiplied by; 0 where nothing is to be learned."""
    chats_cut: int = 0
    """Number of chats that lost their beginning because they are longer than a row."""
    chats_left_out: int = 0
    """Number of chats of which no target was left, be it that they had none."""

    def take(self, rows: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        """The arrays of some rows as tensors (B, T) by name: int64, the weights float32."""
        arrays = {"ids": self.ids, "targets": self.targets, "segments": self.segments,
                  "position_ids": self.position_ids}
        taken = {name: on_device(torch.from_numpy(array[rows].astype(np.int64)), device)
                 for name, array in arrays.items()}
        return taken | {"weights": on_device(torch.from_numpy(self.weights[rows]), device)}

    def with_text(self, text: np.ndarray, fraction: float) -> "PackedRows":
        """These rows and rows of plain text below them, which have `fraction` of the weight of the whole.

        `text` is (N, T + 1) token ids; each token but the first is a target.
        """
        shape = text[:, 1:].shape
        weight = self.weights.sum() * fraction / (1 - fraction) / max(1, text[:, 1:].size)
        plain = PackedRows(ids=text[:, :-1].astype(np.int32), targets=text[:, 1:].astype(np.int32),
                           segments=np.ones(shape, np.int32),
                           position_ids=np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape),
                           weights=np.full(shape, weight, np.float32))
        arrays = {field.name: np.concatenate([getattr(self, field.name), getattr(plain, field.name)])
                  for field in fields(self) if field.name not in ("chats_cut", "chats_left_out")}
        return PackedRows(**arrays, chats_cut=self.chats_cut, chats_left_out=self.chats_left_out)


def pack(chats: list[tuple[list[int], list[bool]]], length: int, pad_id: int, powers: Sequence[float] | None = None,
         start: Sequence[int] = ()) -> PackedRows:
    """Pack (ids, completion mask) chats into rows of `length` tokens, each into the fullest row with room for it, the
    longest first (best-fit decreasing).

    The target of a position is the next token, where the completion mask is True for that one. A chat of n targets
    weighs n to its power, by default the square root, each target the n-th part of it: by the token, a chat whose
    answer is one word would count for next to nothing beside one that tells a story. A chat longer than a row loses its
    beginning, but for the `start` of a document; chats without a target are left out, and both are counted.
    """
    longest = length + 1      # the last token is a target alone
    given = powers if powers is not None else [0.5] * len(chats)
    fitted = [(*_cut(ids, mask, longest, start), power) for (ids, mask), power in zip(chats, given, strict=True)]
    kept = [place for place, (_, mask, _) in enumerate(fitted) if any(mask[1:])]
    cut = [fitted[place] for place in kept]
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
    shape = (len(rows), length)
    packed = PackedRows(ids=np.full(shape, pad_id, np.int32), targets=np.full(shape, IGNORED, np.int32),
                        segments=np.zeros(shape, np.int32), position_ids=np.zeros(shape, np.int32),
                        weights=np.zeros(shape, np.float32),
                        chats_cut=sum(len(chats[place][0]) > longest for place in kept),
                        chats_left_out=len(chats) - len(kept))
    for row, members in enumerate(rows):
        begin = 0
        for segment, index in enumerate(members, start=1):
            ids, completion_mask, power = cut[index]
            place = slice(begin, begin + len(ids) - 1)
            packed.ids[row, place] = ids[:-1]
            packed.targets[row, place] = np.where(completion_mask[1:], ids[1:], IGNORED)
            packed.segments[row, place] = segment
            packed.position_ids[row, place] = np.arange(len(ids) - 1)
            packed.weights[row, place] = np.array(completion_mask[1:]) * sum(completion_mask[1:]) ** (power - 1)
            begin += len(ids) - 1
    return packed


def _cut(ids: list[int], mask: list[bool], longest: int, start: Sequence[int]) -> tuple[list[int], list[bool]]:
    kept = end_of(ids, longest, start)
    before = len(start) if ids[:len(start)] == list(start) else 0
    return kept, mask[:before] + mask[before + len(ids) - len(kept):]
