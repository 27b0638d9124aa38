"""The evidence lower bound: reconstruction against divergence from the prior."""

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.context import Context, Result
from genai_core.families.images.digits import CLASSES, load_digits
from genai_core.families.images.objective import ImageObjective
from genai_core.families.training import train_family_model
from genai_core.families.vae.config import VaeConfig
from genai_core.families.vae.model import Vae, VaeShape, divergence
from genai_core.models.flops import counted_flops
from genai_core.training.objectives.objective import Batch

ACTIVE_NATS = 0.01
"""A latent dimension counts as used when its mean divergence is above this (Burda et al. 2016 use 0.01 too, of the
variance of its mean)."""


class EvidenceLowerBound(ImageObjective):
    """−ELBO in nats an image; the weight of the divergence rises in the first steps, so that the decoder learns to use
    the code before the prior takes it away (Bowman et al. 2016, section 3.1)."""

    def __init__(self, model: Vae, data: Path, config: VaeConfig, device: torch.device):
        example = torch.zeros(1, 1, 28, 28, device=device)
        label, noise = torch.zeros(1, dtype=torch.int64, device=device), torch.zeros(1, config.latent_size,
                                                                                      device=device)
        super().__init__(*load_digits(data, "train"), config, device, counted_flops(model, example, label, noise))
        self.model, self.beta, self.warmup = model, config.beta, config.beta_warmup_fraction
        self.latent_size = config.latent_size
        self.validation = tuple(tensor.to(device) for tensor in load_digits(data, "validation"))

    def batch(self, step: int) -> Batch:
        batch = super().batch(step)
        count, generator = len(batch["images"]), self.noise(step)
        weight = self.beta * min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))
        return batch | {"noise": torch.randn(count, self.latent_size, generator=generator).to(self.device),
                        "weight": torch.full((count,), weight, device=self.device)}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits, mean, log_variance = self.model(batch["images"], batch["labels"], batch["noise"])
        error = F.binary_cross_entropy_with_logits(logits.float(), batch["images"], reduction="none").flatten(1).sum(1)
        rate = divergence(mean.float(), log_variance.float()).sum(1)
        return (error + batch["weight"] * rate).sum(), {"reconstruction": error.detach().sum(),
                                                        "divergence": rate.detach().sum()}

    def evaluate(self, step: int) -> dict[str, float]:
        return held_out_bound(self.model, *self.validation)


@torch.no_grad()
def held_out_bound(model: Vae, images: Tensor, labels: Tensor) -> dict[str, float]:
    """The ELBO in nats an image, one code drawn for each, its two parts, and how many latent dimensions are used."""
    noise = torch.randn(len(images), model.shape.latent_size, generator=torch.Generator().manual_seed(0))
    logits, mean, log_variance = model(images, labels, noise.to(images.device))
    error = F.binary_cross_entropy_with_logits(logits, images, reduction="none").flatten(1).sum(1).mean().item()
    rates = divergence(mean, log_variance).mean(0)
    return {"elbo": -error - rates.sum().item(), "held_out_reconstruction": error,
            "held_out_divergence": rates.sum().item(), "active_dimensions": float((rates > ACTIVE_NATS).sum())}


def run(config: VaeConfig, *, data: Path, out_dir: Path, context: Context) -> Result:
    """Train an autoencoder on the digits in `data` and write its model directory to `out_dir`."""
    shape = VaeShape(config.channels, config.latent_size, CLASSES if config.conditional else 0)
    objective = partial(EvidenceLowerBound, data=data, config=config)
    return train_family_model("vae", Vae, shape, objective, config, context, out_dir,
                              figures=("elbo", "held_out", "active"))
