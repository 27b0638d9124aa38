"""Bits per byte of held-out text: independent of the tokenizer, so that any two language models compare."""

import json
import math
import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from genai_core.data.tokens.token_files import TokenFile
from genai_core.hardware import autocast
from genai_core.models.language_model import LanguageModel

STRETCH = 512
"""Length of a stretch of text, in bytes, that is drawn as one when the noise of bits per byte is estimated."""


LONGEST_WINDOW = 2048
"""Longest window, in tokens, that text is measured in: models from outside may read many times as many."""
LOGITS_AT_ONCE = 2**28
"""Most logits that are there at a time."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


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
    """UTF-8 bytes of each token id, (V,) int64; special tokens count 0.

    Byte-level BPE writes one character a byte; SentencePiece writes text, ▁ for a space, and <0x0A> for a lone byte.
    """
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    byte_level = "ByteLevel" in json.dumps(json.loads(tokenizer.to_str())["decoder"])
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    written = set(tokenizer.get_added_tokens_decoder())      # as they are, whatever the decoder
    lengths = torch.zeros(max(vocabulary.values()) + 1, dtype=torch.int64)
    for token, number in vocabulary.items():
        if number in special:
            continue
        if byte_level and number not in written:
            lengths[number] = len(token)
        else:
            lengths[number] = 1 if _BYTE.fullmatch(token) else len(token.replace("▁", " ").encode())
    return lengths


@torch.no_grad()
def held_out_loss(model: LanguageModel, file: TokenFile, byte_lengths: torch.Tensor, length: int, *, max_tokens: int,
                  device: torch.device, precision: torch.dtype, overlap: bool = False,
                  batch_size: int = 16) -> HeldOutLoss:
    """Loss over the first `max_tokens` tokens of a file, in windows of `length`.

    With `overlap` the windows advance by half their length and count their second half only, so that each token but
    the first ones sees at least half a window of context; without, each window starts cold.
    """
    length = min(length, LONGEST_WINDOW)
    piece = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
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
            states = model.hidden(rows[:, :-1].to(device))[counted.to(device)]
            losses = torch.cat([_losses(model, some, targets) for some, targets in zip(
                states.split(piece), rows[:, 1:][counted].to(device).split(piece), strict=True)])
        nats_of[places[:, 1:][counted]] = losses.cpu().double()
        predicted[places[:, 1:][counted]] = True
    sizes = byte_lengths[ids]
    stretch = (sizes.cumsum(0) - sizes) // STRETCH      # of the first byte of each token
    nats = torch.zeros(int(stretch[-1]) + 1, dtype=torch.float64).index_add_(0, stretch, nats_of)
    utf8_bytes = torch.zeros_like(nats, dtype=torch.int64).index_add_(0, stretch, sizes * predicted)
    return HeldOutLoss(nats_of.sum().item(), int(utf8_bytes.sum()), int(predicted.sum()),
                       list(zip(nats.tolist(), utf8_bytes.tolist(), strict=True)))


def _losses(model: LanguageModel, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model.logits(states).float(), targets, reduction="none")
