"""Cross-entropy of the next tokens, without all logits at once where they would fill a GPU."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.linear_cross_entropy_options import LinearCrossEntropyOptions

from genai_core.data.tokens.batches import IGNORED
from genai_core.models.language_model import LanguageModel

MANY_LOGITS = 2**31
"""Logits of a micro-batch above which a GPU makes them in pieces; in float32 so many take 8 GiB."""


def token_loss(model: LanguageModel, states: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ w_t · −log p(x_t) in nats, a float32 scalar, over targets (B, T) given the hidden states (B, T, C) before them.

    A target that is IGNORED counts 0. `weights` (B, T) are 1 by default.
    """
    states, targets = states.flatten(0, 1), targets.flatten()
    reduction = "sum" if weights is None else "none"
    head = model.head_weight
    if head is not None and states.is_cuda and len(states) * len(head) > MANY_LOGITS:
        losses = in_pieces(states, head, targets, reduction)
    else:
        losses = F.cross_entropy(model.logits(states).float(), targets, ignore_index=IGNORED, reduction=reduction)
    return losses if weights is None else (losses * weights.flatten()).sum()


def in_pieces(states: Tensor, head: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """PyTorch's cross-entropy of hidden states (N, C) times a matrix (V, C), which holds the logits of some rows at a
    time: summed, with its gradients made beside it, or of each row, with the logits made again for the gradients."""
    kind = states.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
    return F.linear_cross_entropy(states.to(dtype), head.to(dtype), targets, ignore_index=IGNORED, reduction=reduction,
                                  options=LinearCrossEntropyOptions()).float()
