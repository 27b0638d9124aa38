"""The simple loss of denoising diffusion: the squared error of the noise (Ho et al. 2020, eq. 14)."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from genai_core.context import Context, Result
from genai_core.families.diffusion.config import DiffusionConfig
from genai_core.families.diffusion.model import NO_LABEL, Diffusion, DiffusionShape
from genai_core.families.images.digits import load_digits
from genai_core.families.images.objective import ImageObjective
from genai_core.families.training import train_family_model
from genai_core.models.flops import counted_flops
from genai_core.training.objectives.objective import Batch


class Denoising(ImageObjective):
    """Mean squared error of the predicted noise, at a random time of each image, whose label is sometimes withheld."""

    def __init__(self, model: Diffusion, data: Path, config: DiffusionConfig, device: torch.device):
        zero = torch.zeros(1, dtype=torch.int64, device=device)
        flops = counted_flops(model.network, torch.zeros(1, 1, 28, 28, device=device), zero, zero)
        super().__init__(*load_digits(data, "train"), config, device, flops)
        self.model = model
        self.diffusion = config
        self.validation = self._noised(*load_digits(data, "validation"), torch.Generator().manual_seed(0),
                                        withheld_share=0.0)

    def players(self, model: nn.Module) -> dict[str, nn.Module]:
        return {"network": self.model.network}

    def player(self, step: int) -> str:
        return "network"

    def batch(self, step: int) -> Batch:
        batch = super().batch(step)
        return self._noised(batch["images"], batch["labels"], self.noise(step), self.diffusion.unconditional_fraction)

    def _noised(self, images: Tensor, labels: Tensor, generator: torch.Generator, withheld_share: float) -> Batch:
        count = len(images)
        times = torch.randint(self.diffusion.noise_steps, (count,), generator=generator).to(self.device)
        noise = torch.randn(images.shape, generator=generator).to(self.device)
        withhold = (torch.rand(count, generator=generator) < withheld_share).to(self.device)
        return {"images": self.model.noised(2 * images.to(self.device) - 1, times, noise), "noise": noise,
                "times": times, "labels": labels.to(self.device).masked_fill(withhold, NO_LABEL)}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        # L = ‖ε − ε(x_t, t, label)‖²                                 Ho et al. 2020, eq. 14
        predicted = self.model.network(batch["images"], batch["times"], batch["labels"])
        return (predicted.float() - batch["noise"]).square().flatten(1).mean(1).sum(), {}

    def after_step(self, skipped: Tensor) -> None:
        self.model.follow(self.diffusion.average_decay, skipped)

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        held_out = self.validation
        predicted = self.model.average(held_out["images"], held_out["times"], held_out["labels"])
        return {"held_out_loss": (predicted - held_out["noise"]).square().mean().item()}


def run(config: DiffusionConfig, *, data: Path, out_dir: Path, context: Context) -> Result:
    """Train a diffusion model on the digits in `data` and write its model directory to `out_dir`."""
    shape = DiffusionShape(config.channels, config.noise_steps, config.sampling_steps, config.guidance)
    objective = partial(Denoising, data=data, config=config)
    return train_family_model("diffusion", Diffusion, shape, objective, config, context, out_dir,
                              figures=("held_out",), counted="network")
