"""Configs that the families on images of digits share."""

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
    """Number of times that the held-out figures are measured, the last time at the end."""


class ClassifierConfig(ImageTrainConfig):
    """Train the small classifier by whose features generated images are measured."""

    channels: int = Field(default=32, ge=4)
    """Feature maps of the first convolution; the second has twice as many."""
    feature_size: int = Field(default=64, ge=4)
    """Width of the last hidden layer, whose activations are the features of the Fréchet distance."""


class ImageEvaluationConfig(Config):
    """Measure generated images."""

    images: int = Field(default=1000, ge=20)
    """Number of generated images that the Fréchet distance and the coverage are measured on."""
    seed: int = Field(default=1, ge=0)
    """Seed of the generated images."""
