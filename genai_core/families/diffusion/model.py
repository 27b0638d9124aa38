"""Denoising diffusion (DDPM: Ho et al. 2020), sampled by DDIM (Song et al. 2021) with classifier-free guidance.

Noise is added in T steps, x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε, and a network learns to predict ε from x_t and t. A sample
begins as pure noise, from which the predicted ε is removed step by step.

Shapes: B images, C channels, E embedding size. Images are (B, 1, 28, 28); the network sees them from −1 to 1.
"""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.families.images.digits import CLASSES
from genai_core.hardware import autocast, choose_precision

NO_LABEL = CLASSES
"""The label of an image whose digit is withheld."""


@dataclass(frozen=True)
class DiffusionShape:
    channels: int
    noise_steps: int
    sampling_steps: int
    guidance: float
    classes: int = CLASSES


def noise_schedule(steps: int) -> Tensor:
    """ᾱ_t for t = 1 … T (T,): the cosine schedule (Nichol & Dhariwal 2021, eq. 17), its β clipped at 0.999."""
    times = torch.arange(steps + 1, dtype=torch.float64) / steps
    curve = torch.cos((times + 0.008) / 1.008 * math.pi / 2).square()
    kept = (curve[1:] / curve[:-1]).clamp(min=0.001)
    return kept.cumprod(0).float()


def time_embedding(times: Tensor, size: int) -> Tensor:
    """Sines and cosines of t (B,) at geometric frequencies (B, E), as of positions in Vaswani et al. 2017."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(size // 2, device=times.device) / (size // 2))
    angles = times[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ResidualBlock(nn.Module):
    """x + two convolutions of x; the embedding of time and label is added to the features between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int):
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.shift = nn.Linear(embedding, outputs)
        last = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.second = nn.Sequential(nn.GroupNorm(8, outputs), nn.SiLU(), last)
        self.pass_by = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        for parameter in last.parameters():
            nn.init.zeros_(parameter)      # the block begins as the identity

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.first(x) + self.shift(embedding)[:, :, None, None]
        return self.pass_by(x) + self.second(hidden)


class UNet(nn.Module):
    """Predicts ε from x_t, t and label, at full, half and quarter resolution (Ronneberger et al. 2015)."""

    def __init__(self, channels: int):
        super().__init__()
        wide, embedding = 2 * channels, 4 * channels
        self.channels = channels
        self.time = nn.Sequential(nn.Linear(channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.label = nn.Embedding(CLASSES + 1, embedding)
        self.enter = nn.Conv2d(1, channels, 3, padding=1)
        self.down = nn.ModuleList([ResidualBlock(channels, channels, embedding),
                                   ResidualBlock(channels, wide, embedding)])
        self.shrink = nn.ModuleList([nn.Conv2d(channels, channels, 4, stride=2, padding=1),
                                     nn.Conv2d(wide, wide, 4, stride=2, padding=1)])
        self.middle = nn.ModuleList([ResidualBlock(wide, wide, embedding), ResidualBlock(wide, wide, embedding)])
        self.grow = nn.ModuleList([nn.ConvTranspose2d(wide, wide, 4, stride=2, padding=1),
                                   nn.ConvTranspose2d(wide, channels, 4, stride=2, padding=1)])
        self.up = nn.ModuleList([ResidualBlock(2 * wide, wide, embedding),
                                 ResidualBlock(2 * channels, channels, embedding)])
        self.leave = nn.Sequential(nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """ε (B, 1, 28, 28) in noised images x at times (B,), of labels (B,)."""
        embedding = F.silu(self.time(time_embedding(times, self.channels)) + self.label(labels))
        x = self.enter(x)
        kept = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            x = block(x, embedding)
            kept.append(x)
            x = shrink(x)
        for block in self.middle:
            x = block(x, embedding)
        for grow, block in zip(self.grow, self.up, strict=True):
            x = block(torch.cat([grow(x), kept.pop()], dim=1), embedding)
        return self.leave(x)


class Diffusion(nn.Module):
    """The network, the moving average of its weights, which generates the images, and the noise schedule."""

    alphas: Tensor

    def __init__(self, shape: DiffusionShape):
        super().__init__()
        self.shape = shape
        self.network = UNet(shape.channels)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.register_buffer("alphas", noise_schedule(shape.noise_steps), persistent=False)

    @torch.no_grad()
    def follow(self, decay: float, skipped: Tensor) -> None:
        """Move the average towards the network's weights, unless `skipped`, a scalar, is 1."""
        for average, parameter in zip(self.average.parameters(), self.network.parameters(), strict=True):
            average.lerp_(parameter, (1 - decay) * (1 - skipped))

    def noised(self, images: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """x_t of images (B, 1, H, W) from −1 to 1 at times (B,) from 0 to T − 1 (Ho et al. 2020, eq. 4)."""
        kept = self.alphas[times][:, None, None, None]
        return kept.sqrt() * images + (1 - kept).sqrt() * noise

    @torch.no_grad()
    def predict(self, x: Tensor, times: Tensor, labels: Tensor, guidance: float) -> Tensor:
        """ε with classifier-free guidance: (1 + w) ε(x, label) − w ε(x) (Ho & Salimans 2022, eq. 6)."""
        with autocast(x.device, choose_precision(x.device)):
            conditional = self.average(x, times, labels).float()
            if guidance == 0:
                return conditional
            without = self.average(x, times, torch.full_like(labels, NO_LABEL)).float()
        return (1 + guidance) * conditional - guidance * without

    @torch.no_grad()
    def generate(self, labels: Tensor, generator: torch.Generator, guidance: float | None = None,
                 steps: int | None = None, strip: list[Tensor] | None = None) -> Tensor:
        """Images (B, 1, H, W) from 0 to 1, one for each label (B,), by DDIM with η = 0 (Song et al. 2021, eq. 12).

        `strip` receives the image that is predicted at each step, from 0 to 1.
        """
        guidance = self.shape.guidance if guidance is None else guidance
        times = torch.linspace(self.shape.noise_steps - 1, 0, steps or self.shape.sampling_steps).round().long()
        x = torch.randn(len(labels), 1, 28, 28, generator=generator).to(labels.device)
        for number, time in enumerate(times.tolist()):
            noise = self.predict(x, torch.full_like(labels, time), labels, guidance)
            kept = self.alphas[time]
            finished = ((x - (1 - kept).sqrt() * noise) / kept.sqrt()).clamp(-1, 1)
            if strip is not None:
                strip.append((finished + 1) / 2)
            if number + 1 == len(times):
                return (finished + 1) / 2
            following = self.alphas[times[number + 1]]
            noise = (x - kept.sqrt() * finished) / (1 - kept).sqrt()      # ε of the clamped image
            x = following.sqrt() * finished + (1 - following).sqrt() * noise
        raise AssertionError("there is always a last step")
