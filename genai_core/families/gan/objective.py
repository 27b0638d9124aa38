"""The game of generator and discriminator: binary cross-entropy, or the Wasserstein distance with gradient penalty."""

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.context import Context, Result
from genai_core.families.gan.config import GanConfig
from genai_core.families.gan.model import Gan, GanShape
from genai_core.families.images.digits import load_digits
from genai_core.families.images.evaluation import ImageMetrics, balanced_labels
from genai_core.families.images.objective import ImageObjective
from genai_core.families.training import train_family_model
from genai_core.models.flops import counted_flops
from genai_core.training.objectives.objective import Batch

MONITOR_IMAGES = 500
"""Generated images that the monitor of mode collapse measures."""


class Adversarial(ImageObjective):
    """`critic_steps` of the discriminator, then `generator_steps` of the generator, and again."""

    def __init__(self, model: Gan, data: Path, classifier: Path, config: GanConfig, device: torch.device):
        noise, image = torch.zeros(1, config.latent_size, device=device), torch.zeros(1, 1, 28, 28, device=device)
        # a step of either player takes both networks forward and one or both back
        flops = counted_flops(model.generator, noise) + 2 * counted_flops(model.discriminator, image)
        super().__init__(*load_digits(data, "train"), config, device, flops)
        self.model = model
        self.game = config
        self.metrics = ImageMetrics(classifier, load_digits(data, "validation")[0], device)

    def players(self, model: nn.Module) -> dict[str, nn.Module]:
        return {"generator": self.model.generator, "discriminator": self.model.discriminator}

    def player(self, step: int) -> str:
        turn = step % (self.game.critic_steps + self.game.generator_steps)
        return "discriminator" if turn < self.game.critic_steps else "generator"

    def batch(self, step: int) -> Batch:
        batch = super().batch(step)
        count, generator = len(batch["images"]), self.noise(step)
        return {"images": 2 * batch["images"] - 1,
                "noise": torch.randn(count, self.game.latent_size, generator=generator).to(self.device),
                "mixture": torch.rand(count, 1, 1, 1, generator=generator).to(self.device),
                "generator_plays": torch.full((count,), self.player(step) == "generator")}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(self.device.type, enabled=False):      # the penalty is a gradient of a gradient
            play = self._generator_loss if batch["generator_plays"][0] else self._discriminator_loss
            return play(batch)

    def _generator_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        value = self.model.discriminator(self.model.generator(batch["noise"]))
        # dcgan: L = −log D(G(z)), which does not saturate            Goodfellow et al. 2014, section 3
        # wgan:  L = −D(G(z))                                         Gulrajani et al. 2017, algorithm 1
        loss = F.softplus(-value).sum() if self.game.objective == "dcgan" else -value.sum()
        return loss, {"generator_loss": loss.detach()}

    def _discriminator_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        fake = self.model.generator(batch["noise"]).detach()
        real_value, fake_value = self.model.discriminator(batch["images"]), self.model.discriminator(fake)
        if self.game.objective == "dcgan":
            # L = −log D(x) − log(1 − D(G(z)))                        Goodfellow et al. 2014, eq. 1
            loss = (F.softplus(-real_value) + F.softplus(fake_value)).sum()
        else:
            # L = D(G(z)) − D(x) + λ (‖∇D(x̂)‖ − 1)²                  Gulrajani et al. 2017, eq. 3
            penalty = self._gradient_penalty(batch["images"], fake, batch["mixture"])
            loss = (fake_value - real_value).sum() + self.game.gradient_penalty * penalty
        return loss, {"discriminator_loss": loss.detach(), "advantage": (real_value - fake_value).detach().sum()}

    def _gradient_penalty(self, real: Tensor, fake: Tensor, mixture: Tensor) -> Tensor:
        """Σ (‖∇D(x̂)‖ − 1)² at points x̂ between real and fake images (B, 1, H, W); `mixture` (B, 1, 1, 1) is the share
        of the real ones."""
        between = (mixture * real + (1 - mixture) * fake).requires_grad_()
        value = self.model.discriminator(between).sum()
        (gradient,) = torch.autograd.grad(value, between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().sum()

    def after_step(self, skipped: Tensor) -> None:
        self.model.follow(self.game.average_decay, skipped)

    def evaluate(self, step: int) -> dict[str, float]:
        """The monitor of mode collapse: how many digits the generator still makes, and its distance to real images."""
        labels = balanced_labels(MONITOR_IMAGES)
        images = self.model.generate(labels.to(self.device), torch.Generator().manual_seed(0)).cpu()
        figures = self.metrics.measure(images, labels)
        return {name: figures[name] for name in ("classes_covered", "frechet_distance")}


def run(config: GanConfig, *, data: Path, classifier: Path, out_dir: Path, context: Context) -> Result:
    """Train both networks on the digits in `data`, watched by `classifier`; write the model directory to `out_dir`."""
    shape = GanShape(config.channels, config.latent_size, batch_norm=config.objective == "dcgan")
    objective = partial(Adversarial, data=data, classifier=classifier, config=config)
    return train_family_model("gan", Gan, shape, objective, config, context, out_dir,
                              figures=("classes", "frechet"), counted="generator")
