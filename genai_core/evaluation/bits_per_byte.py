"""Bits per byte of held-out text: independent of the tokenizer, so that any two language models compare."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn

from genai_core.data.token_files import TokenFile
from genai_core.hardware import autocast


@dataclass(frozen=True)
class HeldOutLoss:
    """Summed negative log-likelihood of held-out text, in nats, and what it is summed over."""

    nats: float
    utf8_bytes: int
    tokens: int
    windows: list[tuple[float, int]]
    """Nats and bytes of each window: what the noise of the figure is estimated from."""

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / max(1, self.utf8_bytes)


def word_perplexity(loss: HeldOutLoss, file: TokenFile) -> float:
    """exp(nats per published word) over the tokens that `loss` was summed over, the first ones of `file`.

    A word is one of the published tokens (WikiText counts line ends too), whatever was done to the text afterwards.
    """
    return math.exp(loss.nats / file.words_before(loss.tokens + 1))      # the first token is read but not predicted


def token_byte_lengths(tokenizer: Tokenizer) -> torch.Tensor:
    """UTF-8 bytes of each token id, (V,) int64: byte-level BPE writes one character a byte; special tokens count 0."""
    special = tokenizer.get_added_tokens_decoder()
    lengths = [0 if number in special else len(tokenizer.id_to_token(number) or "")
               for number in range(tokenizer.get_vocab_size())]
    return torch.tensor(lengths)


@torch.no_grad()
def held_out_loss(model: nn.Module, file: TokenFile, byte_lengths: torch.Tensor, length: int, *, max_tokens: int,
                  device: torch.device, precision: torch.dtype, overlap: bool = False,
                  batch_size: int = 16) -> HeldOutLoss:
    """Loss over the first `max_tokens` tokens of a file, in windows of `length`.

    With `overlap` the windows advance by half their length and count their second half only, so that each token but
    the first ones sees at least half a window of context; without, each window starts cold.
    """
    ids = torch.from_numpy(file.ids[:max_tokens + 1].astype("int64"))
    stride = length // 2 if overlap else length
    starts = list(range(0, max(1, len(ids) - 1 - (length - stride)), stride))
    windows: list[tuple[float, int]] = []
    nats, count = 0.0, 0
    for first in range(0, len(starts), batch_size):
        rows, weights = [], []
        for start in starts[first:first + batch_size]:
            row = ids[start:start + length + 1]
            weight = torch.zeros(length, dtype=torch.bool)
            weight[(length - stride if start else 0):len(row) - 1] = True
            rows.append(F.pad(row, (0, length + 1 - len(row))))
            weights.append(weight)
        tokens, counted = torch.stack(rows), torch.stack(weights)
        with autocast(device, precision):
            logits = model(tokens[:, :-1].to(device))
        losses = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten().to(device), reduction="none")
        by_row = (losses.cpu().double().view_as(counted) * counted).sum(1)
        bytes_by_row = (byte_lengths[tokens[:, 1:]] * counted).sum(1)
        windows += zip(by_row.tolist(), bytes_by_row.tolist(), strict=True)
        nats += losses.cpu().double()[counted.flatten()].sum().item()
        count += int(counted.sum())
    return HeldOutLoss(nats, sum(size for _, size in windows), count, windows)
