"""Configs of the variational autoencoders."""

from pydantic import Field

from genai_core.families.config import FamilyConfig
from genai_core.families.images.config import ClassifierConfig, DigitsConfig, ImageEvaluationConfig, ImageTrainConfig


class VaeConfig(ImageTrainConfig):
    """Train a variational autoencoder."""

    channels: int = Field(default=32, ge=4)
    """Feature maps of the first convolution; the second has twice as many."""
    latent_size: int = Field(default=16, ge=1)
    """Dimensions of the latent code."""
    conditional: bool = False
    """Whether encoder and decoder are given the label."""
    beta: float = Field(default=1.0, ge=0)
    """Weight of the divergence of the posterior from the prior; 1 is the evidence lower bound."""
    beta_warmup_fraction: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps, at the start, in which the weight rises from 0."""


class VaeFamily(FamilyConfig):
    """Variational autoencoders of digit images."""

    digits: DigitsConfig = DigitsConfig()
    digit_classifier: ClassifierConfig
    vae: VaeConfig
    conditional_vae: VaeConfig
    collapsed_vae: VaeConfig
    evaluate: ImageEvaluationConfig = ImageEvaluationConfig()
