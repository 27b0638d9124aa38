"""Configs of the image families: digits, their classifier, VAE, GAN, diffusion."""

from typing import Literal

from pydantic import Field

from genai_core.config.base import Config
from genai_core.config.training import TrainConfig


class DigitsConfig(Config):
    """Images and labels as tensors, one file a split."""

    limit: int | None = Field(default=None, ge=10)
    """At most this many training images, at even distances over the source; empty for all."""


class ImageTrainConfig(TrainConfig):
    """What every training on images needs."""

    steps: int = Field(ge=1)
    """Optimizer steps."""
    evaluations: int = Field(default=4, ge=1)
    """How many times the held-out figures are measured, the last time at the end."""


class ClassifierConfig(ImageTrainConfig):
    """Train the small classifier by whose features generated images are judged."""

    channels: int = Field(default=32, ge=4)
    """Feature maps of the first convolution; the second has twice as many."""
    feature_size: int = Field(default=64, ge=4)
    """Numbers in the last hidden layer: the features of the Fréchet distance."""


class AugmentedClassifierConfig(ClassifierConfig):
    """Train the same classifier on real digits and on digits that a model made."""

    synthetic_images: int = Field(default=1000, ge=1)
    """Made images that join the real ones, each digit equally often."""


class VaeConfig(ImageTrainConfig):
    """Train a variational autoencoder."""

    channels: int = Field(default=32, ge=4)
    """Feature maps of the first convolution; the second has twice as many."""
    latent_size: int = Field(default=16, ge=1)
    """Numbers of the latent code."""
    conditional: bool = False
    """Give encoder and decoder the label."""
    beta: float = Field(default=1.0, ge=0)
    """Weight of the divergence of the posterior from the prior; 1 is the evidence lower bound."""
    beta_warmup_fraction: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps in which the weight rises from 0."""


class GanConfig(ImageTrainConfig):
    """Train a generator against a network that tells its images from real ones."""

    objective: Literal["dcgan", "wgan"]
    """`dcgan`: binary cross-entropy; `wgan`: Wasserstein distance with gradient penalty."""
    channels: int = Field(default=32, ge=4)
    """Feature maps next to the image; deeper layers have twice as many."""
    latent_size: int = Field(default=32, ge=1)
    """Numbers of noise that an image is made from."""
    critic_steps: int = Field(default=1, ge=1)
    """Steps of the discriminator or critic, after which the generator has its turn."""
    generator_steps: int = Field(default=1, ge=1)
    """Steps of the generator before it is the other's turn again."""
    gradient_penalty: float = Field(default=10.0, ge=0)
    """Weight of the gradient penalty; unused with `dcgan`."""
    average_decay: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the moving average of the generator's weights, which makes the images."""


class DiffusionConfig(ImageTrainConfig):
    """Train a network to take noise away."""

    channels: int = Field(default=32, ge=8)
    """Feature maps at full resolution; twice as many at half, and at a quarter."""
    noise_steps: int = Field(default=400, ge=2)
    """Steps of the noising process (T)."""
    sampling_steps: int = Field(default=20, ge=1)
    """Steps of the sampler."""
    unconditional_fraction: float = Field(default=0.1, ge=0, le=1)
    """Share of the training images whose label is withheld, for classifier-free guidance."""
    guidance: float = Field(default=2.0, ge=0)
    """Weight w of the guidance: (1 + w) · conditional − w · unconditional."""
    average_decay: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the moving average of the weights, which makes the images."""


class ImageEvaluationConfig(Config):
    """Judge generated images."""

    images: int = Field(default=1000, ge=20)
    """Generated images for the Fréchet distance and the coverage."""
    seed: int = Field(default=1, ge=0)
    """Seed of what is generated."""


class DiffusionEvaluationConfig(ImageEvaluationConfig):
    """Judge the images of a diffusion model."""

    guidance_sweep: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0)
    """Weights of the guidance to draw the trade-off at."""
    sweep_images: int = Field(default=200, ge=10)
    """Images for each of them."""
