"""Log-probabilities of the tokens that were taken, and entropies of what they were taken from.

What is a vocabulary wide takes the time, and its exponential most of it. PyTorch's `log_softmax` leads to three, for
itself, for the entropy and for the gradient; here the probabilities serve for all of them.

Shapes: N tokens; V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor


def taken_log_probs(logits: Tensor, ids: Tensor, entropy: bool = True) -> tuple[Tensor, Tensor]:
    """Log-probability of token `ids[n]` (N,) by logits (N, V) in float32, and entropy of the distribution, both (N,).
    The entropy has no gradient, and is 0 where nobody asks for it."""
    found: tuple[Tensor, Tensor] = _TakenLogProbs.apply(logits, ids, entropy)
    return found


class _TakenLogProbs(torch.autograd.Function):
    """log p_i = x_i − log Σ exp x;  H = log Σ exp x − Σ p x;  d log p_i / d x_j = [i = j] − p_j."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, entropy: bool) -> tuple[Tensor, Tensor]:
        probabilities = torch.softmax(logits, dim=-1)
        # by the likeliest token, whose probability is no rounded zero
        log_total = logits.amax(-1) - probabilities.amax(-1).log()
        taken = logits.gather(-1, ids[:, None])[:, 0] - log_total
        entropies = log_total - (probabilities * logits).sum(-1) if entropy else torch.zeros_like(taken)
        ctx.save_for_backward(probabilities, ids)
        ctx.mark_non_differentiable(entropies)
        return taken, entropies

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        probabilities, ids = ctx.saved_tensors
        gradient = gradients[0][:, None]
        return (probabilities * -gradient).scatter_add_(1, ids[:, None], gradient), None, None
