"""Floating-point operations of training: by formula, or counted as PyTorch executes the model."""

import torch
from torch import Tensor, nn


def flops_per_token(weights: int, layers: int = 0, width: int = 0, length: int = 0) -> float:
    """6 N + 12 L C T: operations of the forward and backward pass for one token (Kaplan et al. 2020; PaLM appendix B).

    N is the number of weights that multiply; L the layers of self-attention, C their width and T the length of the
    sequence, 0 for a model without attention.
    """
    return 6.0 * weights + 12 * layers * width * length


def matrix_weights(model: nn.Module, *lookups: str) -> int:
    """Number of weights in matrices, those left out whose name begins with one of `lookups`: an embedding multiplies
    nothing."""
    return sum(parameter.numel() for name, parameter in model.named_parameters()
               if parameter.dim() == 2 and not name.startswith(lookups))


def counted_flops(model: nn.Module, *example: Tensor) -> float:
    """Operations of the forward and backward pass for one example: three times those of the forward pass, which are
    counted as PyTorch executes it."""
    from torch.utils.flop_counter import FlopCounterMode

    training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*example)
    model.train(training)
    return 3.0 * counter.get_total_flops()
