"""Bits per byte of held-out text: independent of the tokenizer, so that any two language models compare."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from genai_core.data.tokens.token_files import TokenFile
from genai_core.hardware import autocast
from genai_core.models.language_model import LanguageModel

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
def held_out_loss(model: LanguageModel, file: TokenFile, byte_lengths: torch.Tensor, length: int, *, max_tokens: int,
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
        chosen = torch.tensor(starts[first:first + batch_size])
        places = chosen[:, None] + torch.arange(length + 1)      # (B, T + 1): where each window lies in `ids`
        rows = ids[places.clamp(max=len(ids) - 1)]
        counted = places[:, 1:] < len(ids)
        counted[chosen > 0, :length - stride] = False
        with autocast(device, precision):      # a vocabulary wide: not for tokens that do not count
            logits = model.logits(model.hidden(rows[:, :-1].to(device))[counted.to(device)])
        losses = F.cross_entropy(logits.float(), rows[:, 1:][counted].to(device), reduction="none")
        nats_of[places[:, 1:][counted]] = losses.cpu().double()
        predicted[places[:, 1:][counted]] = True
    sizes = byte_lengths[ids]
    stretch = (sizes.cumsum(0) - sizes) // STRETCH      # of the first byte of each token
    nats = torch.zeros(int(stretch[-1]) + 1, dtype=torch.float64).index_add_(0, stretch, nats_of)
    utf8_bytes = torch.zeros_like(nats, dtype=torch.int64).index_add_(0, stretch, sizes * predicted)
    return HeldOutLoss(nats_of.sum().item(), int(utf8_bytes.sum()), int(predicted.sum()),
                       list(zip(nats.tolist(), utf8_bytes.tolist(), strict=True)))
