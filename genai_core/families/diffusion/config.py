"""Configs of the diffusion model."""

from pydantic import Field

from genai_core.families.config import FamilyConfig
from genai_core.families.images.config import ClassifierConfig, DigitsConfig, ImageEvaluationConfig, ImageTrainConfig
from genai_core.families.vae.config import VaeConfig


class DiffusionConfig(ImageTrainConfig):
    """Train a network to predict the noise in an image."""

    channels: int = Field(default=32, ge=8)
    """Feature maps at full resolution; at half and at a quarter, twice as many."""
    noise_steps: int = Field(default=400, ge=2)
    """Steps T of the noising process."""
    sampling_steps: int = Field(default=20, ge=1)
    """Steps of the DDIM sampler."""
    unconditional_fraction: float = Field(default=0.1, ge=0, le=1)
    """Share of the training images whose label is withheld, for classifier-free guidance."""
    guidance: float = Field(default=2.0, ge=0)
    """Weight w of the guidance: (1 + w) · conditional − w · unconditional."""
    average_decay: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the moving average of the weights, with which images are generated."""


class DiffusionEvaluationConfig(ImageEvaluationConfig):
    """Measure the images of a diffusion model."""

    guidance_sweep: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0)
    """Weights of the guidance at which agreement and distance are drawn."""
    sweep_images: int = Field(default=200, ge=10)
    """Images generated at each of these weights."""


class DiffusionFamily(FamilyConfig):
    """A diffusion model of digit images."""

    digits: DigitsConfig = DigitsConfig()
    digit_classifier: ClassifierConfig
    conditional_vae: VaeConfig
    diffusion: DiffusionConfig
    evaluate: DiffusionEvaluationConfig = DiffusionEvaluationConfig()
