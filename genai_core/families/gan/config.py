"""Configs of the adversarial networks."""

from typing import Literal

from pydantic import Field

from genai_core.families.config import FamilyConfig
from genai_core.families.images.config import ClassifierConfig, DigitsConfig, ImageEvaluationConfig, ImageTrainConfig
from genai_core.families.vae.config import VaeConfig


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


class GanFamily(FamilyConfig):
    """Adversarial networks that make digit images."""

    digits: DigitsConfig = DigitsConfig()
    digit_classifier: ClassifierConfig
    vae: VaeConfig
    dcgan: GanConfig
    wgan: GanConfig
    collapsed_gan: GanConfig
    evaluate: ImageEvaluationConfig = ImageEvaluationConfig()
