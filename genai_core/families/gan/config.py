"""Configs of the adversarial networks."""

from typing import Literal

from pydantic import Field

from genai_core.families.config import FamilyConfig
from genai_core.families.images.config import ClassifierConfig, DigitsConfig, ImageEvaluationConfig, ImageTrainConfig
from genai_core.families.vae.config import VaeConfig


class GanConfig(ImageTrainConfig):
    """Train a generator against a discriminator that tells its images from real ones."""

    objective: Literal["dcgan", "wgan"]
    """`dcgan`: binary cross-entropy; `wgan`: Wasserstein distance with gradient penalty."""
    channels: int = Field(default=32, ge=4)
    """Feature maps next to the image; layers further from it have two and four times as many."""
    latent_size: int = Field(default=32, ge=1)
    """Size of the noise vector that an image is generated from."""
    critic_steps: int = Field(default=1, ge=1)
    """Steps of the discriminator or critic before each turn of the generator."""
    generator_steps: int = Field(default=1, ge=1)
    """Steps of the generator in each of its turns."""
    gradient_penalty: float = Field(default=10.0, ge=0)
    """Weight of the gradient penalty; unused with `dcgan`."""
    skip_above_deviations: float = Field(default=0.0, ge=0)
    """As for every training, but off: the loss of a player rises when the other becomes better."""
    average_decay: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the moving average of the generator's weights, with which images are generated."""


class GanFamily(FamilyConfig):
    """Adversarial networks that make digit images."""

    digits: DigitsConfig = DigitsConfig()
    digit_classifier: ClassifierConfig
    vae: VaeConfig
    dcgan: GanConfig
    wgan: GanConfig
    collapsed_gan: GanConfig
    evaluate: ImageEvaluationConfig = ImageEvaluationConfig()
