"""Frozen weights in four bits: NormalFloat (NF4) in blocks of 64, as QLoRA holds those below adapters (Dettmers et al.
2023, section 3 and appendix E).

`FourBitLinear` takes the place of a linear layer, and `dequantized` gives the layer back. The weights that multiply are
made for one product and made again for its gradient, so that a whole copy of one layer at most is there at a time.

Own code, since what it takes is a table of sixteen numbers: why not bitsandbytes or torchao is in docs/LOG.md. The
levels, the order of the bytes and the blocks are those of bitsandbytes. The scales of the blocks stay in float32: in
eight bits (double quantization, section 3) they would spare another 8 % of these bytes.
"""

from functools import cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
          -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
          0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
"""Quantiles of the normal distribution, scaled to [−1, 1] and with an exact 0 (Dettmers et al. 2023, appendix E)."""
BLOCK = 64
"""Weights that share a scale: the largest magnitude among them."""
HALF = BLOCK // 2
"""Bytes of a block before the four of its scale."""


def packed_bytes(weights: int) -> int:
    """Size in bytes of so many weights of one layer."""
    return -(-weights // BLOCK) * (HALF + 4)


@torch.no_grad()
def quantize(weight: Tensor) -> Tensor:
    """Bytes (⌈N K / 64⌉, 36) of a weight (N, K): of each block two levels a byte, the first in the upper half, then the
    scale as a float32. In bytes, since a model that is cast to another precision casts everything but integers."""
    blocks = F.pad(weight.float().flatten(), (0, -weight.numel() % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(1, keepdim=True)
    between = torch.tensor([(low + high) / 2 for low, high in pairwise(LEVELS)], device=weight.device)
    levels = torch.bucketize(blocks / scales.clamp(min=torch.finfo(torch.float32).tiny), between, out_int32=True)
    pairs = (levels[:, ::2] << 4 | levels[:, 1::2]).to(torch.uint8)
    return torch.cat([pairs, scales.view(torch.uint8)], 1)


@torch.library.custom_op("genai::dequantize_four_bit", mutates_args=())
def dequantize(packed: Tensor, outputs: int, inputs: int) -> Tensor:
    """The weight (N, K) in float32 of what `quantize` has made of one. An operation of its own: torch.compile calls it
    as it is."""
    pairs = _pairs(packed.device).index_select(0, packed[:, :HALF].int().flatten())      # two weights with each look-up
    blocks = pairs.view(torch.float32).view(-1, BLOCK)
    blocks *= packed[:, HALF:].clone().view(torch.float32)
    return blocks.flatten()[:outputs * inputs].view(outputs, inputs)


@dequantize.register_fake
def _(packed: Tensor, outputs: int, inputs: int) -> Tensor:
    return packed.new_empty((outputs, inputs), dtype=torch.float32)


@cache
def _pairs(device: torch.device) -> Tensor:
    """The two levels of each byte, as one number of eight bytes (256,)."""
    levels = torch.tensor(LEVELS)
    return torch.stack([levels.repeat_interleave(16), levels.repeat(16)], 1).view(torch.int64).flatten().to(device)


class _Product(torch.autograd.Function):
    """W x + b with a gradient for x alone, and nothing kept for it but the bytes of W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, bias: Tensor | None, outputs: int, inputs: int) -> Tensor:
        ctx.save_for_backward(packed)
        ctx.sizes, ctx.dtype = (outputs, inputs), x.dtype
        return F.linear(x, dequantize(packed, outputs, inputs).to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        gradient, (packed,) = gradients[0], ctx.saved_tensors
        weight = dequantize(packed, *ctx.sizes).to(gradient.dtype)      # under autocast that of the product
        return (gradient @ weight).to(ctx.dtype), None, None, None, None


class FourBitLinear(nn.Module):
    """A linear layer of K inputs and N outputs that is not trained, on the nearest weights that four bits hold."""

    def __init__(self, layer: nn.Module, transposed: bool):
        """Take the weights of `layer`, which is left without them; `transposed` says that it keeps them as (K, N)."""
        super().__init__()
        weight = layer.weight
        assert isinstance(weight, Tensor)
        weight = weight.T if transposed else weight
        self.outputs, self.inputs = weight.shape
        self.transposed = transposed
        self.packed = nn.Parameter(quantize(weight), requires_grad=False)
        self.bias = layer.bias
        layer.weight = None      # type: ignore[assignment]
        self._emptied = (layer,)      # in a tuple, so that its bias is not found twice

    @property
    def weight(self) -> Tensor:
        """The weights as the layer kept them, in float32, made anew with each look."""
        weight: Tensor = dequantize(self.packed, self.outputs, self.inputs)
        return weight.T if self.transposed else weight

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = _Product.apply(x, self.packed, self.bias, self.outputs, self.inputs)
        return product

    def dequantized(self) -> nn.Module:
        """The layer that this one has taken the place of, with the weights of this one."""
        layer = self._emptied[0]
        layer.weight = nn.Parameter(self.weight.contiguous())
        layer.bias = self.bias
        return layer


def number_of_weights(model: nn.Module) -> int:
    """Number of parameters of a model, of bytes that hold two those that they stand for."""
    packed = [part for part in model.modules() if isinstance(part, FourBitLinear)]
    return (sum(parameter.numel() for parameter in model.parameters())
            + sum(part.outputs * part.inputs - part.packed.numel() for part in packed))
