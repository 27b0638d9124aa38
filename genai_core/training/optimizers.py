"""Optimizers and the schedule of their learning rate.

AdamW trains vectors and embeddings, Muon the matrices inside the layers; SGD is there to compare them with.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from genai_core.config.training import TrainConfig
from genai_core.errors import InputError
from genai_core.hardware import choose_precision
from genai_core.models.adapters import is_transposed
from genai_core.training.ranks import Ranks
from genai_core.training.sharding import beside, part_of, whole_of

WHOLE_AT_ONCE = 8
"""Matrices of a model in parts that every rank has whole at a time."""


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz iterations (Jordan et al. 2024).

    Matrices of one shape are stacked and iterated together, in bfloat16 where the hardware multiplies it: on a CPU this
    takes a third of the time of one matrix after another (docs/LOG.md). Where its attribute `found_inf`, a scalar
    tensor, is 1, a step changes nothing, as with PyTorch's own fused optimizers. A group that is `transposed` has its
    matrices as (inputs, outputs).
    """

    found_inf: Tensor | None = None

    def __init__(self, parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], lr: float, momentum: float = 0.95,
                 weight_decay: float = 0.0, steps: int = 5, dtype: torch.dtype = torch.bfloat16):
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps, "transposed": False}
        super().__init__(parameters, defaults)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:      # type: ignore[override]  # the loop passes no closure
        keep = None if self.found_inf is None else 1 - self.found_inf
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in _at_once(by_shape):
                updates = torch.stack([whole_of(self._momentum(parameter, group["momentum"])) for parameter in
                                       parameters])
                updates = self._orthogonalize(updates, group["steps"])
                outputs, inputs = shape[::-1] if group["transposed"] else shape
                scale = max(1.0, outputs / inputs) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    part, decay = part_of(update, parameter), group["lr"] * group["weight_decay"]
                    parameter.mul_(1 - (decay if keep is None else decay * keep))
                    parameter.add_(part if keep is None else part * keep, alpha=-group["lr"] * scale)

    def _orthogonalize(self, matrices: Tensor, steps: int) -> Tensor:
        """Of several ranks, each iterates some of the matrices, and all get all."""
        ranks = Ranks.current()
        if ranks.count == 1:
            return orthogonalize(matrices, steps, self.dtype)
        padding = -len(matrices) % ranks.count
        stacked = F.pad(matrices, (0, 0, 0, 0, 0, padding))
        own = orthogonalize(stacked[ranks.part(len(stacked))], steps, self.dtype)
        return ranks.all_gather(own)[:len(matrices)]

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov momentum of the gradient."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        gradient = parameter.grad
        assert gradient is not None
        if self.found_inf is not None:      # NaN times nothing is NaN
            gradient = torch.where(self.found_inf > 0, state["momentum"], gradient)
        buffer = state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum)


def _at_once(by_shape: dict[torch.Size, list[nn.Parameter]]) -> Iterator[tuple[torch.Size, list[nn.Parameter]]]:
    """Parameters that are stacked: all of a shape, or of a model in parts a few, since they are whole meanwhile."""
    for shape, parameters in by_shape.items():
        count = WHOLE_AT_ONCE if isinstance(parameters[0], DTensor) else len(parameters)
        for first in range(0, len(parameters), count):
            yield shape, parameters[first:first + count]


def orthogonalize(matrices: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Nearly U Vᵀ of each matrix U S Vᵀ of (N, rows, columns): singular values come out between 0.7 and 1.2.

    The quintic's coefficients are those of Jordan et al. 2024, chosen for the steepest slope at zero.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.to(dtype)
    transposed = x.shape[-2] > x.shape[-1]
    if transposed:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(b * gram, gram, gram, alpha=c) @ x
    return (x.mT if transposed else x).to(matrices.dtype)


def build_optimizers(model: nn.Module, config: TrainConfig, device: torch.device) -> list[torch.optim.Optimizer]:
    """AdamW or SGD alone, or Muon for the matrices of the blocks and AdamW for all others. Raises InputError for Muon
    where there are no such matrices."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    in_blocks, transposed_ones = _of_blocks(model)
    matrices = [parameter for _, parameter in named if id(parameter) in in_blocks]
    others = [parameter for _, parameter in named if id(parameter) not in in_blocks]
    if config.optimizer == "muon":
        if not matrices:
            raise InputError("optimizer: muon trains the matrices of a model's blocks, and this one has none to train; "
                             "take adamw")
        groups = [{"params": [each for each in matrices if (id(each) in transposed_ones) == transposed],
                   "transposed": transposed} for transposed in (False, True)]
        muon = Muon([group for group in groups if group["params"]], lr=config.matrix_learning_rate,
                    weight_decay=config.weight_decay, dtype=choose_precision(device))
        if not others:      # adapters are matrices alone
            return [muon]
        return [torch.optim.AdamW(others, lr=config.learning_rate, betas=config.adam_betas, weight_decay=0.0,
                                  fused=True), muon]
    if config.optimizer == "sgd":
        sgd = torch.optim.SGD([parameter for _, parameter in named], lr=config.learning_rate, momentum=0.9,
                              nesterov=True, fused=True)
        for _, parameter in named:      # made by the first step, it would stay unwritten where that one is skipped
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return [sgd]
    decayed = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [torch.optim.AdamW([group for group in decayed if group["params"]], lr=config.learning_rate,
                              betas=config.adam_betas, fused=True)]


def _of_blocks(model: nn.Module) -> tuple[set[int], set[int]]:
    """Ids of the matrices in the repeated blocks of a model, whatever these are called (`layers`, `h`, `blocks`), but
    for embeddings; and of those that are kept as (inputs, outputs)."""
    blocks = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    parts = [part for block in blocks for part in block.modules() if not isinstance(part, nn.Embedding)]
    matrices = {id(parameter) for part in parts for parameter in part.parameters(recurse=False)
                if parameter.dim() == 2}
    return matrices, {id(part.weight) for part in parts if is_transposed(part)}


def rates(config: TrainConfig) -> str:
    """The optimizers of a training with their peak learning rates, in words."""
    if config.optimizer == "muon":
        return f"muon at {config.matrix_learning_rate:.3g} and adamw at {config.learning_rate:.3g}"
    return f"{config.optimizer} at {config.learning_rate:.3g}"


def take_step(optimizer: torch.optim.Optimizer, skip: Tensor) -> None:
    """A step that is without effect where `skip`, a scalar on the device, is 1. No host waits for it, but for PyTorch's
    optimizers on a Mac's GPU, whose kernels do not ask."""
    if skip.device.type == "mps" and not isinstance(optimizer, Muon):
        if not skip.item():
            optimizer.step()
        return
    optimizer.found_inf = beside(skip, optimizer.param_groups[0]["params"][0])      # type: ignore[attr-defined]
    optimizer.step()


def learning_rate_factor(step: int, steps: int, config: TrainConfig) -> float:
    """Learning rate at `step` of `steps`, as a share of the peak: linear up, constant, linear down to the final share
    (warmup-stable-decay: Hu et al. 2024, section 4)."""
    warmup = max(1, round(config.warmup_fraction * steps))
    decay = round(config.decay_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    if step < steps - decay:
        return 1.0
    left = (steps - 1 - step) / max(1, decay - 1)
    return config.final_learning_rate_fraction + (1 - config.final_learning_rate_fraction) * left
