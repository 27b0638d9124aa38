"""How the next token is chosen.

Shapes: B sequences, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the defaults take the likeliest one."""

    temperature: float = 0.0
    """What the logits are divided by; 0 takes the likeliest token."""
    top_k: int = 0
    """Number of likeliest tokens to sample among; 0 for all."""
    top_p: float = 1.0
    """Sample among the likeliest tokens that together have this probability (Holtzman et al. 2020)."""
    min_p: float = 0.0
    """Sample among tokens with at least this share of the likeliest one's probability (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """What makes tokens that are already there less likely: their logits are divided by it, negative ones multiplied
    (Keskar et al. 2019)."""

    @property
    def restricts(self) -> bool:
        """Whether some tokens are never chosen."""
        return bool(self.top_k) or self.top_p < 1 or self.min_p > 0


def choose(logits: Tensor, sampling: Sampling, drawn: Tensor | None = None, seen: Tensor | None = None
           ) -> tuple[Tensor, Tensor]:
    """Next token (B,) for logits (B, V), and its log-probability (B,) in the distribution that it is drawn from.

    `drawn` (B,) are numbers from 0 to 1: a token is chosen where the number falls into its part of the summed
    probabilities. They are needed unless the temperature is 0. `seen` (B, V) says which tokens are already there, for a
    repetition penalty. The log-probability of a likeliest token is that at temperature 1.
    """
    logits = logits.float()
    if sampling.repetition_penalty != 1 and seen is not None:
        penalty = sampling.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if sampling.temperature == 0:
        likeliest = torch.log_softmax(logits, dim=-1).max(dim=-1)
        return likeliest.indices, likeliest.values
    if drawn is None:
        raise ValueError("sampling needs numbers to draw by")
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    probabilities = torch.softmax(logits, dim=-1)
    if sampling.restricts:
        probabilities = probabilities.where(_allowed(probabilities, sampling), 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    summed = probabilities.cumsum(-1)
    total = summed[:, -1:].contiguous()
    chosen = torch.searchsorted(summed, drawn[:, None] * total, right=True)
    # rounding must not lead to a token without probability: the last one that adds to the sum is the last resort
    chosen = torch.minimum(chosen, torch.searchsorted(summed, total))
    return chosen[:, 0], probabilities.gather(-1, chosen)[:, 0].log()


def _allowed(probabilities: Tensor, sampling: Sampling) -> Tensor:
    """Which tokens (B, V) are among the top k, in the nucleus and likely enough beside the likeliest."""
    allowed = torch.ones_like(probabilities, dtype=torch.bool)
    if sampling.top_k:
        least = probabilities.topk(min(sampling.top_k, probabilities.shape[-1])).values[:, -1:]
        allowed &= probabilities >= least
    if sampling.min_p > 0:
        allowed &= probabilities >= sampling.min_p * probabilities.amax(-1, keepdim=True)
    if sampling.top_p < 1:
        kept = probabilities.where(allowed, 0.0)
        ordered, order = (kept / kept.sum(-1, keepdim=True)).sort(dim=-1, descending=True)
        within = ordered.cumsum(dim=-1) - ordered < sampling.top_p
        allowed &= torch.zeros_like(allowed).scatter(-1, order, within)
    return allowed


def uniform_numbers(seeds: list[int], count: int) -> Tensor:
    """Numbers from 0 to 1 (B, N) to draw `count` tokens of each sequence by, from a seed of its own: what a sequence
    becomes depends on nothing beside it."""
    return torch.stack([torch.rand(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
