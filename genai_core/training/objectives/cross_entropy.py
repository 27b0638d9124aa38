"""Cross-entropy of the next tokens, without all logits at once where they would fill a GPU."""

from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from genai_core.data.tokens.batches import IGNORED
from genai_core.models.language_model import LanguageModel

MANY_LOGITS = 2**31
"""Logits of a micro-batch above which a GPU makes them in pieces; in float32 so many take 8 GiB."""
PIECE = 4096
"""Tokens whose logits are there at a time."""


def token_loss(model: LanguageModel, states: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ w_t · −log p(x_t) in nats, a float32 scalar, over targets (B, T) given the hidden states (B, T, C) before them.

    A target that is IGNORED counts 0. `weights` (B, T) are 1 by default.
    """
    states, targets = states.flatten(0, 1), targets.flatten()
    weights = None if weights is None else weights.flatten()
    head = model.head_weight
    if head is not None and states.is_cuda and len(states) * len(head) > MANY_LOGITS:
        return in_pieces(states, head, targets, weights)
    return _summed(model.logits(states), targets, weights)


def select_targets(states: Tensor, targets: Tensor, weights: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of hidden states (B, T, C), targets and weights (B, T) the `most` first that have a target, (1, most, …), so that
    no logits are made where nothing is learned; where there are fewer, the rest is without one. The shapes depend on
    `most` alone, so that a loss is compiled once, and no GPU is waited for."""
    flat = targets.flatten()
    places = (flat == IGNORED).to(torch.uint8).argsort(stable=True)[:most]
    return states.flatten(0, 1)[places][None], flat[places][None], weights.flatten()[places][None]


def in_pieces(states: Tensor, head: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """The loss of hidden states (N, C) times a matrix (V, C), with the logits of PIECE tokens at a time, which are made
    again for the gradients. Sums, those of the matrix's gradient too, are in float32."""
    kind = states.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype

    def piece(some: Tensor, head: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        with torch.autocast(kind, enabled=False):      # its cache of weights would add up gradients in its precision
            return _summed(F.linear(some.to(dtype), head.to(dtype)), targets, weights)

    total = states.new_zeros((), dtype=torch.float32)
    pieces = repeat(None) if weights is None else weights.split(PIECE)
    for some, its_targets, its_weights in zip(states.split(PIECE), targets.split(PIECE), pieces, strict=False):
        total = total + checkpoint(piece, some, head, its_targets, its_weights, use_reentrant=False,
                                   preserve_rng_state=False)
    return total


def _summed(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    losses = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED,
                             reduction="sum" if weights is None else "none")
    return losses if weights is None else (losses * weights).sum()
