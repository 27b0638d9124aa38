"""Generation with a key-value cache, for one prompt or a batch of prompts of different lengths."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from torch import Tensor

from genai_core.models.language_model import LanguageModel


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The defaults take the most likely one."""

    temperature: float = 0.0
    """0 is greedy; otherwise logits are divided by it."""
    top_k: int = 0
    """Sample among this many most likely tokens; 0 for all."""
    top_p: float = 1.0
    """Sample among the most likely tokens that together have this probability."""


@dataclass(frozen=True)
class Completions:
    """Token ids (B, N) after each prompt, padded after the end token; `mask` is True up to and including that token.

    `log_probabilities` (B, N) are those of the sampled tokens under temperature 1 of the sampling distribution's logits
    divided by the temperature, before top-k and top-p.
    """

    ids: Tensor
    mask: Tensor
    log_probabilities: Tensor


@torch.no_grad()
def generate(model: LanguageModel, prompts: list[list[int]], max_new_tokens: int, end_ids: set[int], *, pad_id: int,
             sampling: Sampling | None = None, generator: torch.Generator | None = None) -> Completions:
    """Continue each prompt until an end token or `max_new_tokens`. Prompts are padded on the left and masked.

    Raises ValueError for an empty prompt.
    """
    if not prompts or not all(prompts):
        raise ValueError("every prompt needs at least one token")
    device = next(model.parameters()).device
    steps = _Decoder(model, prompts, max_new_tokens, pad_id, device)
    batch = len(prompts)
    ids = torch.full((batch, max_new_tokens), pad_id, device=device)
    mask = torch.zeros((batch, max_new_tokens), dtype=torch.bool, device=device)
    log_probabilities = torch.zeros((batch, max_new_tokens), device=device)
    alive = torch.ones(batch, dtype=torch.bool, device=device)
    ends = torch.tensor(sorted(end_ids), device=device)
    logits = steps.first()
    for position in range(max_new_tokens):
        chosen, chosen_log = choose(logits, sampling or Sampling(), generator)
        ids[:, position] = torch.where(alive, chosen, pad_id)
        mask[:, position] = alive
        log_probabilities[:, position] = torch.where(alive, chosen_log, 0.0)
        alive = alive & ~torch.isin(chosen, ends)
        if not alive.any():
            return Completions(ids[:, :position + 1], mask[:, :position + 1], log_probabilities[:, :position + 1])
        if position + 1 < max_new_tokens:
            logits = steps.next(ids[:, position])
    return Completions(ids, mask, log_probabilities)


@torch.no_grad()
def stream(model: LanguageModel, prompt: list[int], max_new_tokens: int, end_ids: set[int],
           sampling: Sampling | None = None, generator: torch.Generator | None = None) -> Iterator[int]:
    """The tokens of one completion as they are made, the end token left out."""
    device = next(model.parameters()).device
    steps = _Decoder(model, [prompt], max_new_tokens, 0, device)
    logits = steps.first()
    for position in range(max_new_tokens):
        chosen, _ = choose(logits, sampling or Sampling(), generator)
        token = int(chosen)
        if token in end_ids:
            return
        yield token
        if position + 1 < max_new_tokens:
            logits = steps.next(chosen)


def text_pieces(tokenizer: Tokenizer, tokens: Iterator[int]) -> Iterator[str]:
    """The text of tokens, piece by piece as it becomes whole: a character may take several tokens."""
    decoder = DecodeStream(skip_special_tokens=True)
    for token in tokens:
        piece = decoder.step(tokenizer, token)
        if piece:
            yield piece


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """The next token (B,) for logits (B, V), and its log-probability (see Completions)."""
    if sampling.temperature == 0:
        log_probabilities = torch.log_softmax(logits.float(), dim=-1)
        chosen = log_probabilities.argmax(dim=-1)
        return chosen, log_probabilities.gather(-1, chosen[:, None])[:, 0]
    log_probabilities = torch.log_softmax(logits.float() / sampling.temperature, dim=-1)
    probabilities = _restrict(log_probabilities.exp(), sampling)
    chosen = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    return chosen, log_probabilities.gather(-1, chosen[:, None])[:, 0]


def _restrict(probabilities: Tensor, sampling: Sampling) -> Tensor:
    """Zero outside the top k and the nucleus (Holtzman et al. 2020); multinomial renormalises."""
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
    """The cache, positions and mask of a batch that grows by one token a step."""

    def __init__(self, model: LanguageModel, prompts: list[list[int]], new_tokens: int, pad_id: int,
                 device: torch.device):
        longest = max(map(len, prompts))
        self.model = model
        rows = [[pad_id] * (longest - len(prompt)) + prompt for prompt in prompts]
        self.prompt = torch.tensor(rows, device=device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        real = torch.arange(longest, device=device)[None] >= (longest - lengths)[:, None]
        self.padded = bool((lengths < longest).any())
        self.seen = torch.cat([real, torch.ones(len(prompts), new_tokens, dtype=torch.bool, device=device)], dim=1)
        self.positions = (self.seen.cumsum(dim=1) - 1).clamp(min=0)
        self.cache = model.new_cache(len(prompts), longest + new_tokens)

    def first(self) -> Tensor:
        length = self.prompt.shape[1]
        mask = None
        if self.padded:
            causal = torch.ones(length, length, dtype=torch.bool, device=self.prompt.device).tril()
            # a padding position sees itself, so that its softmax is not over nothing
            mask = (causal & (self.seen[:, None, :length] | torch.eye(length, dtype=torch.bool,
                                                                      device=self.prompt.device)))[:, None]
        states = self.model.hidden(self.prompt, self.positions[:, :length], mask, self.cache)
        return self.model.logits(states[:, -1])

    def next(self, ids: Tensor) -> Tensor:
        end = self.cache.length + 1
        mask = self.seen[:, None, None, :end] if self.padded else None
        states = self.model.hidden(ids[:, None], self.positions[:, end - 1:end], mask, self.cache)
        return self.model.logits(states[:, -1])
