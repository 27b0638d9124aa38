"""Four-bit weights in the blocks of GGUF: each 32 weights of a row share a scale d in float16, w = d · level[q].

Shapes: N outputs, K inputs of a layer, G = K / 32 blocks of a row.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genai_core.config.release import BLOCK
from genai_core.quantization.compensation import compensated, nearest

FourBits = Literal["Q4_0", "IQ4_NL"]

LEVELS: dict[FourBits, Tensor] = {
    "Q4_0": torch.arange(-8.0, 8.0),
    # closer together around zero, where most weights are: `kvalues_iq4nl` of ggml
    "IQ4_NL": torch.tensor([-127.0, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])}
SHARES = torch.linspace(0.7, 1.1, 17)
"""Of the range of a block, that a scale is tried for: cutting off the largest weights may be the smaller error."""


def quantize_4_bits(weight: Tensor, form: FourBits, second_moment: Tensor | None = None) -> np.ndarray:
    """Bytes (N, 18 G) of weights (N, K), in float32, as GGUF stores them: each weight is rounded by itself or, with
    `second_moment`, E[x xᵀ] (K, K) of the layer's inputs, so that the product with them keeps.

    Raises ValueError unless 32 divides K.
    """
    rows, columns = weight.shape
    if columns % BLOCK:
        raise ValueError(f"{columns} inputs cannot be cut into blocks of {BLOCK}")
    levels = LEVELS[form]
    importance = torch.ones(columns) if second_moment is None else second_moment.diagonal().clamp(min=1e-12)
    scale = _scales(weight.view(rows, -1, BLOCK), levels, importance.view(-1, BLOCK))
    of_each = scale.float().repeat_interleave(BLOCK, dim=1)
    chosen = nearest(weight / of_each, levels) if second_moment is None else \
        compensated(weight, of_each, levels, second_moment)
    return packed(chosen, scale)


def _scales(blocks: Tensor, levels: Tensor, importance: Tensor) -> Tensor:
    """Scales (N, G) in float16, of those tried the ones of least squared error of blocks (N, G, 32), each weight's by
    the importance (G, 32) of its input."""
    largest = blocks.gather(2, blocks.abs().argmax(2, keepdim=True))
    best_error = torch.full(blocks.shape[:2], float("inf"))
    best = torch.zeros(blocks.shape[:2])
    for furthest in (levels[0], levels[-1]):      # the largest weight may be on either side of the levels
        for share in SHARES:
            scale = largest * share / furthest
            reached = levels[nearest(blocks / _not_zero(scale), levels)]
            squares = (importance * reached * reached).sum(2)
            fitted = (importance * reached * blocks).sum(2) / squares.clamp(min=1e-12)      # least squares
            fitted = fitted.half().float()
            error = (importance * (reached * fitted[..., None] - blocks) ** 2).sum(2)
            better = error < best_error
            best_error, best = torch.where(better, error, best_error), torch.where(better, fitted, best)
    return _not_zero(best).half()


def _not_zero(scale: Tensor) -> Tensor:
    return torch.where(scale.abs() < 1e-7, torch.full_like(scale, 1e-7), scale)


def packed(chosen: Tensor, scale: Tensor) -> np.ndarray:
    """Bytes (N, 18 G) of numbers of levels (N, K) and scales (N, G): of each block the scale, then two numbers in each
    byte, that of the first half of the block in the low four bits."""
    rows, blocks = scale.shape
    halves = chosen.to(torch.uint8).view(rows, blocks, 2, BLOCK // 2)
    values = (halves[:, :, 0] | (halves[:, :, 1] << 4)).numpy()
    scales = np.ascontiguousarray(scale.numpy()).view(np.uint8).reshape(rows, blocks, 2)
    return np.concatenate([scales, values], axis=2).reshape(rows, -1)
