"""Generative adversarial network (Goodfellow et al. 2014) of convolutions (DCGAN: Radford et al. 2016).

A generator makes images from noise, a discriminator tells them from real ones; each is trained against the other.

Shapes: B images, L latent size, C channels. Images are (B, 1, 28, 28); the networks see them from −1 to 1.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SMALL = 7


@dataclass(frozen=True)
class GanShape:
    channels: int
    latent_size: int
    batch_norm: bool
    """Whether the discriminator normalises batches; the gradient penalty is of single images, which its critic must not
    mix (Gulrajani et al. 2017, section 4)."""
    classes: int = 0
    """Number of labels: these networks know none."""


class Generator(nn.Module):
    """Noise (B, L) to images (B, 1, 28, 28) from −1 to 1."""

    def __init__(self, shape: GanShape):
        super().__init__()
        channels = shape.channels
        self.network = nn.Sequential(
            nn.Linear(shape.latent_size, 4 * channels * SMALL * SMALL), nn.Unflatten(1, (4 * channels, SMALL, SMALL)),
            nn.BatchNorm2d(4 * channels), nn.ReLU(),
            nn.ConvTranspose2d(4 * channels, 2 * channels, 4, stride=2, padding=1),
            nn.BatchNorm2d(2 * channels), nn.ReLU(),
            nn.ConvTranspose2d(2 * channels, 1, 4, stride=2, padding=1), nn.Tanh())

    def forward(self, noise: Tensor) -> Tensor:
        return self.network(noise)


class Discriminator(nn.Module):
    """Images (B, 1, 28, 28) from −1 to 1 to one number each (B,): the logit of being real, or the critic's value."""

    def __init__(self, shape: GanShape):
        super().__init__()
        channels = shape.channels
        self.network = nn.Sequential(
            nn.Conv2d(1, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.BatchNorm2d(2 * channels) if shape.batch_norm else nn.Identity(), nn.LeakyReLU(0.2),
            nn.Flatten(), nn.Linear(2 * channels * SMALL * SMALL, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[:, 0]


class Gan(nn.Module):
    """Both players, and the moving average of the generator that makes the images (Yazıcı et al. 2019)."""

    def __init__(self, shape: GanShape):
        super().__init__()
        self.shape = shape
        self.generator, self.discriminator = Generator(shape), Discriminator(shape)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.02)      # as Radford et al. 2016 begin
        self.average = copy.deepcopy(self.generator).requires_grad_(False)

    @torch.no_grad()
    def follow(self, decay: float, skipped: Tensor) -> None:
        """Move the average towards the generator's weights, unless `skipped`, a scalar, is 1; copy the statistics of
        batch normalisation, which the loop has put back where a step was skipped."""
        for average, parameter in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            average.lerp_(parameter, (1 - decay) * (1 - skipped))
        for kept, buffer in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            kept.copy_(buffer)

    @torch.no_grad()
    def generate(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, 1, H, W) from 0 to 1, as many as there are labels (B,), which are not used."""
        noise = torch.randn(len(labels), self.shape.latent_size, generator=generator).to(labels.device)
        return (self.average.eval()(noise) + 1) / 2
