"""Generation with a key-value cache, for one prompt or a batch of prompts of different lengths."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from torch import Tensor

from genai_core.data.tokens.batches import pad
from genai_core.models.language_model import LanguageModel
from genai_core.models.masks import left_padded_mask, position_ids_of


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the defaults take the likeliest one."""

    temperature: float = 0.0
    """What the logits are divided by; 0 takes the likeliest token."""
    top_k: int = 0
    """Number of likeliest tokens to sample among; 0 for all."""
    top_p: float = 1.0
    """Sample among the likeliest tokens that together have this probability."""


@dataclass(frozen=True)
class Completions:
    """What a model wrote after each of B prompts, up to N tokens."""

    ids: Tensor
    """Token ids (B, N), padded after the end token."""
    mask: Tensor
    """(B, N): True up to the end token, that one included."""
    log_probs: Tensor
    """Log-probability (B, N) of each token at the sampling temperature, before top-k and top-p; 0 on padding."""

    def unpadded(self) -> list[list[int]]:
        """Token ids of each completion, the end token included."""
        return [ids[mask].tolist() for ids, mask in zip(self.ids.cpu(), self.mask.cpu(), strict=True)]


@torch.no_grad()
def generate(model: LanguageModel, prompts: list[list[int]], max_new_tokens: int, end_ids: set[int], *, pad_id: int,
             sampling: Sampling | None = None, generator: torch.Generator | None = None,
             draws: Tensor | None = None, go_on: Callable[[bool], bool] = bool) -> Completions:
    """Continue each prompt, given as token ids, until an end token or for `max_new_tokens`.

    Tokens are drawn by `draws` (B, N), numbers from 0 to 1, where they are given: those of a prompt then depend on
    nothing beside it in the batch. `go_on` is given whether any is unfinished, and says whether there is a next token:
    processes that share a model out have to go on together. Prompts of unequal length are padded on the left and
    masked. Raises ValueError for an empty prompt.
    """
    if not prompts or not all(prompts):
        raise ValueError("every prompt needs at least one token")
    device = next(model.parameters()).device
    decoder = _Decoder(model, prompts, max_new_tokens, pad_id, device)
    batch = len(prompts)
    ids = torch.full((batch, max_new_tokens), pad_id, device=device)
    mask = torch.zeros((batch, max_new_tokens), dtype=torch.bool, device=device)
    log_probs = torch.zeros((batch, max_new_tokens), device=device)
    alive = torch.ones(batch, dtype=torch.bool, device=device)
    ends = torch.tensor(sorted(end_ids), device=device)
    logits = decoder.first()
    for position in range(max_new_tokens):
        drawn = None if draws is None else draws[:, position].to(device)
        chosen, chosen_log = choose(logits, sampling or Sampling(), generator, drawn)
        ids[:, position] = torch.where(alive, chosen, pad_id)
        mask[:, position] = alive
        log_probs[:, position] = torch.where(alive, chosen_log, 0.0)
        alive = alive & ~torch.isin(chosen, ends)
        if not go_on(bool(alive.any())):
            return Completions(ids[:, :position + 1], mask[:, :position + 1], log_probs[:, :position + 1])
        if position + 1 < max_new_tokens:
            logits = decoder.next(ids[:, position])
    return Completions(ids, mask, log_probs)


@torch.no_grad()
def next_logits(model: LanguageModel, prompts: list[list[int]], pad_id: int) -> Tensor:
    """Logits (B, V) of the token after each prompt."""
    return _Decoder(model, prompts, 0, pad_id, next(model.parameters()).device).first()


@torch.no_grad()
def stream(model: LanguageModel, prompt: list[int], max_new_tokens: int, end_ids: set[int],
           sampling: Sampling | None = None, generator: torch.Generator | None = None) -> Iterator[int]:
    """Token ids of one completion, one by one as they are sampled, without the end token."""
    device = next(model.parameters()).device
    decoder = _Decoder(model, [prompt], max_new_tokens, 0, device)
    logits = decoder.first()
    for position in range(max_new_tokens):
        chosen, _ = choose(logits, sampling or Sampling(), generator)
        token = int(chosen)
        if token in end_ids:
            return
        yield token
        if position + 1 < max_new_tokens:
            logits = decoder.next(chosen)


def text_pieces(tokenizer: Tokenizer, tokens: Iterator[int]) -> Iterator[str]:
    """Text of a stream of token ids, in pieces of whole characters: one may take several tokens."""
    decoder = DecodeStream(skip_special_tokens=True)
    for token in tokens:
        piece = decoder.step(tokenizer, token)
        if piece:
            yield piece


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator | None, drawn: Tensor | None = None
           ) -> tuple[Tensor, Tensor]:
    """Next token (B,) for logits (B, V), by the numbers `drawn` (B,) from 0 to 1 where they are given, and its
    log-probability (B,) before top-k and top-p."""
    if sampling.temperature == 0:
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        chosen = log_probs.argmax(dim=-1)
        return chosen, log_probs.gather(-1, chosen[:, None])[:, 0]
    log_probs = torch.log_softmax(logits.float() / sampling.temperature, dim=-1)
    probabilities = _restrict(log_probs.exp(), sampling)
    if drawn is None:
        chosen = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    else:      # the token in whose part of the summed probabilities the number falls
        summed = probabilities.cumsum(-1)
        chosen = torch.searchsorted(summed, drawn[:, None] * summed[:, -1:], right=True)[:, 0]
        chosen = chosen.clamp(max=logits.shape[-1] - 1)
    return chosen, log_probs.gather(-1, chosen[:, None])[:, 0]


def _restrict(probabilities: Tensor, sampling: Sampling) -> Tensor:
    """Set probabilities (B, V) outside the top k and the nucleus (Holtzman et al. 2020) to 0; multinomial sampling
    needs no sum of 1."""
    if sampling.top_k:
        least = probabilities.topk(min(sampling.top_k, probabilities.shape[-1])).values[:, -1:]
        probabilities = probabilities.where(probabilities >= least, 0.0)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered.where(before < sampling.top_p, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    return probabilities


class _Decoder:
    """Cache, position ids and attention mask of a batch that grows by one token a step."""

    def __init__(self, model: LanguageModel, prompts: list[list[int]], new_tokens: int, pad_id: int,
                 device: torch.device):
        prompt, attention_mask = pad(prompts, pad_id, "left")
        self.model = model
        self.prompt = prompt.to(device)
        self.padded = not bool(attention_mask.all())
        self.attention_mask = F.pad(attention_mask, (0, new_tokens), value=True).to(device)
        self.position_ids = position_ids_of(self.attention_mask)
        self.cache = model.new_cache(len(prompts), self.attention_mask.shape[1])

    def first(self) -> Tensor:
        """Logits (B, V) of the token after the prompts."""
        length = self.prompt.shape[1]
        mask = left_padded_mask(self.attention_mask[:, :length]) if self.padded else None
        states = self.model.hidden(self.prompt, self.position_ids[:, :length], mask, self.cache)
        return self.model.logits(states[:, -1])

    def next(self, ids: Tensor) -> Tensor:
        """Logits (B, V) of the token after `ids` (B,)."""
        end = self.cache.length + 1
        mask = self.attention_mask[:, None, None, :end] if self.padded else None
        states = self.model.hidden(ids[:, None], self.position_ids[:, end - 1:end], mask, self.cache)
        return self.model.logits(states[:, -1])
