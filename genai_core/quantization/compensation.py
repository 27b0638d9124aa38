"""Rounding in which the weights of later columns make up for what earlier ones lose: GPTQ (Frantar et al. 2023).

Shapes: N outputs, K inputs of a layer.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from genai_core.models.language_model import LanguageModel
from genai_core.models.masks import packed_mask

DAMPING = 0.01
"""Share of the mean of the second moments that is added to each, so that inputs that are never used do no harm."""
BLOCK = 128
"""Columns that are rounded before the others are corrected for all of them at once."""


@torch.no_grad()
def second_moments(model: LanguageModel, batches: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """E[x xᵀ] (K, K) of the inputs x of each linear layer, by the layer's name, over the tokens of packed rows."""
    sums: dict[str, Tensor] = {}
    tokens = 0
    kept = torch.zeros(0, dtype=torch.bool)

    def add(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].float().flatten(0, -2)[kept]
            sums[name] = sums.get(name, torch.zeros(x.shape[1], x.shape[1])) + x.T @ x
        return hook

    handles = [module.register_forward_pre_hook(add(name)) for name, module in model.named_modules()
               if isinstance(module, nn.Linear)]
    for batch in batches:
        kept = (batch["segments"] > 0).flatten()      # not the padding
        tokens += int(kept.sum())
        model.hidden(batch["ids"], batch["position_ids"], packed_mask(batch["segments"]))
    for handle in handles:
        handle.remove()
    return {name: total / tokens for name, total in sums.items()}


def nearest(values: Tensor, levels: Tensor) -> Tensor:
    """Number of the nearest of ascending levels for each value."""
    return torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)


def compensated(weight: Tensor, scale: Tensor, levels: Tensor, second_moment: Tensor) -> Tensor:
    """Numbers q (N, K) of levels for which scale · levels[q], both (N, K), keeps W x rather than W: algorithm 1.

    With H = E[x xᵀ] + λ I and U the upper Cholesky factor of H⁻¹, the error of column j over U_jj is taken off each
    later column k, U_jk times: at once within a block of columns, after it off all the others.
    """
    columns = weight.shape[1]
    hessian = second_moment.double()
    damping = DAMPING * hessian.diagonal().mean().clamp(min=1e-8)
    hessian = hessian + damping * torch.eye(columns, dtype=torch.float64)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    left, scale, levels = weight.to(torch.float64, copy=True), scale.double(), levels.double()
    chosen = torch.empty(weight.shape, dtype=torch.long)
    errors = torch.empty_like(left)
    for first in range(0, columns, BLOCK):
        last = min(first + BLOCK, columns)
        for column in range(first, last):
            step = scale[:, column]
            chosen[:, column] = nearest(left[:, column] / step, levels)
            errors[:, column] = (left[:, column] - levels[chosen[:, column]] * step) / upper[column, column]
            left[:, column + 1:last] -= errors[:, column, None] * upper[column, column + 1:last]
        left[:, last:] -= errors[:, first:last] @ upper[first:last, last:]
    return chosen
