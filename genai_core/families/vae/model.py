"""Variational autoencoder (Kingma & Welling 2014), and the conditional one (Sohn et al. 2015).

The encoder gives the mean and variance of a Gaussian q(z | x) over codes, the decoder the probability p(x | z) of each
pixel. Both maximise the evidence lower bound (eq. 2 there):

    log p(x) ≥ E_q[log p(x | z)] − KL(q(z | x) ‖ p(z)),   p(z) = N(0, I).

Shapes: B images, L latent size, C channels. Images are (B, 1, 28, 28) from 0 to 1.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 28
SMALL = SIZE // 4


@dataclass(frozen=True)
class VaeShape:
    channels: int
    latent_size: int
    classes: int
    """Number of labels, which encoder and decoder are given; 0 for none."""


class Vae(nn.Module):
    """Convolutional encoder and decoder, both given the label where there are classes."""

    def __init__(self, shape: VaeShape):
        super().__init__()
        self.shape = shape
        channels, inner = shape.channels, 2 * shape.channels
        self.encoder = nn.Sequential(
            nn.Conv2d(1, channels, 4, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(channels, inner, 4, stride=2, padding=1), nn.SiLU(), nn.Flatten())
        self.posterior = nn.Linear(inner * SMALL * SMALL + shape.classes, 2 * shape.latent_size)
        self.expand = nn.Linear(shape.latent_size + shape.classes, inner * SMALL * SMALL)
        self.decoder = nn.Sequential(
            nn.SiLU(), nn.ConvTranspose2d(inner, channels, 4, stride=2, padding=1), nn.SiLU(),
            nn.ConvTranspose2d(channels, 1, 4, stride=2, padding=1))

    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of q(z | x), both (B, L), for images and labels (B,)."""
        features = torch.cat([self.encoder(images), self._one_hot(labels)], dim=1)
        mean, log_variance = self.posterior(features).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of the pixels for codes (B, L) and labels (B,)."""
        features = self.expand(torch.cat([codes, self._one_hot(labels)], dim=1))
        return self.decoder(features.view(len(codes), -1, SMALL, SMALL))

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the reconstruction from z = μ + σ · noise (the reparameterisation trick), μ, and log σ²."""
        mean, log_variance = self.encode(images, labels)
        codes = mean + (0.5 * log_variance).exp() * noise
        return self.decode(codes, labels), mean, log_variance

    @torch.no_grad()
    def generate(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, 1, H, W) from codes drawn from the prior; labels (B,) only matter to a conditional model."""
        codes = torch.randn(len(labels), self.shape.latent_size, generator=generator).to(labels.device)
        return torch.sigmoid(self.decode(codes, labels))

    def _one_hot(self, labels: Tensor) -> Tensor:
        if not self.shape.classes:
            return torch.zeros(len(labels), 0, device=labels.device)
        return F.one_hot(labels, self.shape.classes).float()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) of each latent dimension, in nats: ½ (μ² + σ² − 1 − log σ²) (Kingma & Welling 2014,
    appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
