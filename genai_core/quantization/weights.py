"""Weight-only quantization: symmetric int8 by output channel, asymmetric int4 by groups of inputs.

Weights are rounded once; activations stay in floating point. Shapes: N outputs, K inputs, G groups of S inputs.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.quantization.compensation import compensated

Bits = Literal[8, 4]


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (N, K) to int8 and scales (N,): scale = max|w| / 127 of each row, q = round(w / scale)."""
    scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
    return torch.round(weight / scale[:, None]).clamp(-127, 127).to(torch.int8), scale


def dequantize_int8(values: Tensor, scale: Tensor) -> Tensor:
    """Weights (N, K) in float32 from int8 values and scales (N,)."""
    return values.float() * scale[:, None]


def quantize_int4(weight: Tensor, group_size: int, second_moment: Tensor | None = None
                  ) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (N, K) to packed values (N, K/2) uint8, scales and minima (N, G) float16.

    Each group's range is cut to the share of it that gives the least squared error of a few shares tried, then divided
    into 15 steps. Each weight is rounded by itself or, with `second_moment`, E[x xᵀ] (K, K) of the layer's inputs, so
    that the product with them keeps. Even columns are in the low four bits. Raises ValueError unless S divides K and K
    is even.
    """
    rows, columns = weight.shape
    if columns % group_size or columns % 2:
        raise ValueError(f"{columns} inputs cannot be cut into groups of {group_size}")
    groups = weight.view(rows, -1, group_size)
    low, high = groups.amin(dim=2, keepdim=True), groups.amax(dim=2, keepdim=True)
    best: tuple[Tensor, ...] | None = None
    for share in (1.0, 0.95, 0.9, 0.85, 0.8):
        scale = ((high - low) * share / 15).clamp(min=1e-7).half().float()
        minimum = ((high + low) / 2 - scale * 7.5).half().float()
        values = torch.round((groups - minimum) / scale).clamp(0, 15)
        error = (values * scale + minimum - groups).pow(2).sum(dim=2, keepdim=True)
        if best is None:
            best = (values, scale, minimum, error)
        else:
            better = error < best[3]
            best = tuple(torch.where(better, new, old) for new, old in zip((values, scale, minimum, error), best,
                                                                            strict=True))
    assert best is not None
    values, scale, minimum = best[0].view(rows, columns), best[1], best[2]
    if second_moment is not None:
        values = compensated(weight, scale.expand_as(groups).reshape(rows, columns),
                             minimum.expand_as(groups).reshape(rows, columns), second_moment)
    values = values.to(torch.uint8)
    return values[:, 0::2] | (values[:, 1::2] << 4), scale[:, :, 0].half(), minimum[:, :, 0].half()


def dequantize_int4(packed: Tensor, scale: Tensor, minimum: Tensor) -> Tensor:
    """Weights (N, K) in float32 from packed values (N, K/2), scales and minima (N, G)."""
    rows, half = packed.shape
    values = torch.stack([packed & 15, packed >> 4], dim=2).view(rows, scale.shape[1], -1).float()
    return (values * scale.float()[:, :, None] + minimum.float()[:, :, None]).view(rows, half * 2)


class QuantizedLinear(nn.Module):
    """A linear layer without bias whose weights are stored in eight or four bits."""

    weight_int8: Tensor
    weight_int4: Tensor
    weight_scale: Tensor
    weight_minimum: Tensor

    def __init__(self, tensors: dict[str, Tensor]):
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        self.bits: Bits = 8 if "weight_int8" in tensors else 4
        self._product: Tensor | None = None

    def weight(self) -> Tensor:
        """The weights (N, K) in float32."""
        if self.bits == 8:
            return dequantize_int8(self.weight_int8, self.weight_scale)
        return dequantize_int4(self.weight_int4, self.weight_scale, self.weight_minimum)

    def forward(self, x: Tensor) -> Tensor:
        """The product (…, N) with activations (…, K).

        On a CPU the int8 product runs on the stored bytes; four-bit weights are widened to floats once, since PyTorch
        has no portable four-bit product.
        """
        if self.bits == 8 and x.device.type == "cpu" and x.numel() // x.shape[-1] <= 32:
            flat = x.reshape(-1, x.shape[-1])
            product = torch._weight_int8pack_mm(flat, self.weight_int8, self.weight_scale.to(x.dtype))
            return product.view(*x.shape[:-1], -1)
        if self._product is None or self._product.dtype != x.dtype or self._product.device != x.device:
            self._product = self.weight().to(x.dtype)
        return F.linear(x, self._product)


class QuantizedEmbedding(nn.Module):
    """An embedding whose rows are stored in eight bits, and the tied head, which multiplies with the same bytes."""

    def __init__(self, values: Tensor, scale: Tensor):
        super().__init__()
        self.head = QuantizedLinear({"weight_int8": values, "weight_scale": scale})

    def forward(self, ids: Tensor) -> Tensor:
        return self.head.weight_int8[ids].float() * self.head.weight_scale[ids][..., None]

    def project(self, states: Tensor) -> Tensor:
        return self.head(states)
