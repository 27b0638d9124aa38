"""Configs of the families that classify: recurrent cells and encoders on reviews, digits to their names."""

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
    """Longest text; of longer ones the beginning and the end stay, half of each."""
    train_reviews: int | None = Field(default=None, ge=10)
    """Most training reviews, at even distances; empty for all."""
    held_out_reviews: int = Field(default=1000, ge=10)
    """Most validation and most test reviews, likewise."""


class ReviewTrainConfig(TrainConfig):
    """What every training on reviews needs."""

    epochs: float = Field(gt=0, le=1000)
    """Passes over the training reviews."""
    evaluations: int = Field(default=3, ge=1)
    """How many times the held-out figures are measured, the last time at the end."""


class ClassificationEvaluationConfig(Config):
    """Judge classifiers on held-out reviews."""

    samples: int = Field(default=5, ge=0)
    """Reviews to print."""
