"""Configs of data augmentation."""

from pydantic import Field

from genai_core.families.config import FamilyConfig
from genai_core.families.images.config import ClassifierConfig, DigitsConfig, ImageEvaluationConfig
from genai_core.families.vae.config import VaeConfig


class AugmentedClassifierConfig(ClassifierConfig):
    """Train the same classifier on real digits and on generated ones."""

    synthetic_images: int = Field(default=1000, ge=1)
    """Generated images that are added to the real ones, each digit equally often."""


class AugmentationFamily(FamilyConfig):
    """Generated digits added to few real ones."""

    few_digits: DigitsConfig
    few_vae: VaeConfig
    few_classifier: ClassifierConfig
    augmented_classifier: AugmentedClassifierConfig
    evaluate: ImageEvaluationConfig = ImageEvaluationConfig()
