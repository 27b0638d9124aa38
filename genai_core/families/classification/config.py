"""Configs that the classifiers of reviews share."""

from typing import Literal

from pydantic import Field

from genai_core.config.base import Config
from genai_core.config.training import TrainConfig


class ReviewsConfig(Config):
    """Labelled reviews, and their vocabulary."""

    source: Literal["reviews/imdb", "reviews/rotten_tomatoes"] = "reviews/imdb"
    """Long reviews (IMDB), or single sentences (Rotten Tomatoes)."""
    vocab_size: int = Field(default=4096, ge=300, le=65_536)
    """Entries of the vocabulary, special tokens included."""
    text_tokens: int = Field(default=128, ge=8)
    """Longest text, in tokens; of a longer one the first and the last half of this many are kept."""
    train_reviews: int | None = Field(default=None, ge=10)
    """Most training reviews, taken at even distances over the source; empty for all."""
    held_out_reviews: int = Field(default=1000, ge=10)
    """Most validation reviews and most test reviews, likewise."""


class ReviewTrainConfig(TrainConfig):
    """What every training on reviews needs."""

    epochs: float = Field(gt=0, le=1000)
    """Passes over the training reviews."""
    evaluations: int = Field(default=3, ge=1)
    """Number of times that the held-out figures are measured, the last time at the end."""


class ClassificationEvaluationConfig(Config):
    """Measure classifiers on held-out reviews."""

    samples: int = Field(default=5, ge=0)
    """Number of reviews to print with their predictions."""
