"""Bits per byte of held-out text: independent of the tokenizer, so that any two language models compare."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn

from genai_core.data.tokens.token_files import TokenFile
from genai_core.hardware import autocast

STRETCH = 512
"""Length of a stretch of text, in bytes, that is drawn as one when the noise of bits per byte is estimated."""


@dataclass(frozen=True)
class HeldOutLoss:
    """Summed negative log-likelihood of held-out text, in nats, and what it is summed over."""

    nats: float
    utf8_bytes: int
    tokens: int
    stretches: list[tuple[float, int]]
    """Nats and bytes of each stretch of STRETCH bytes of the text: what the noise of the figure is estimated from.
    Where one begins does not depend on the tokenizer, so that any two models are compared on the same ones."""

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
    nats_of = torch.zeros(len(ids), dtype=torch.float64)      # of each token, in order; the first is not predicted
    predicted = torch.zeros(len(ids), dtype=torch.bool)
    for first in range(0, len(starts), batch_size):
        chosen = starts[first:first + batch_size]
        rows = torch.stack([F.pad(ids[start:start + length + 1], (0, length + 1 - len(ids[start:start + length + 1])))
                            for start in chosen])
        with autocast(device, precision):
            logits = model(rows[:, :-1].to(device))
        losses = F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten().to(device), reduction="none")
        for start, row in zip(chosen, losses.cpu().double().view(len(chosen), length), strict=True):
            begin, end = (length - stride if start else 0), min(length, len(ids) - 1 - start)
            nats_of[start + 1 + begin:start + 1 + end] = row[begin:end]
            predicted[start + 1 + begin:start + 1 + end] = True
    sizes = byte_lengths[ids]
    stretch = (sizes.cumsum(0) - sizes) // STRETCH      # of the first byte of each token
    nats = torch.zeros(int(stretch[-1]) + 1, dtype=torch.float64).index_add_(0, stretch, nats_of)
    utf8_bytes = torch.zeros_like(nats, dtype=torch.int64).index_add_(0, stretch, sizes * predicted)
    return HeldOutLoss(nats_of.sum().item(), int(utf8_bytes.sum()), int(predicted.sum()),
                       list(zip(nats.tolist(), utf8_bytes.tolist(), strict=True)))
