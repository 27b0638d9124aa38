"""Configs of the families that classify: recurrent cells and encoders on reviews, digits to their names."""

from typing import Literal

from pydantic import Field

from genai_core.config.base import Config
from genai_core.config.training import TrainConfig
from genai_core.families.images.config import ImageTrainConfig
from genai_core.families.recurrent.config import Cell


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


class ManyToOneConfig(ReviewTrainConfig):
    """Train recurrent layers to tell a review's sentiment from their last state."""

    cell: Cell
    """The recurrent cell."""
    embedding_size: int = Field(default=64, ge=4)
    """Numbers of a token's embedding."""
    hidden_size: int = Field(default=128, ge=8)
    """Numbers in the hidden state."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of the embedding's numbers that are blanked in training."""


class OneToManyConfig(ImageTrainConfig):
    """Train a recurrent decoder to write a digit's name, letter by letter, from its image."""

    cell: Cell
    """The recurrent cell of the decoder."""
    hidden_size: int = Field(default=96, ge=8)
    """Numbers in the hidden state."""
    embedding_size: int = Field(default=16, ge=2)
    """Numbers of a letter's embedding."""


class MaskedConfig(ReviewTrainConfig):
    """Train an encoder to fill in masked tokens."""

    hidden_size: int = Field(default=128, ge=16)
    """Width of the residual stream."""
    heads: int = Field(default=4, ge=1)
    """Attention heads; they divide the width."""
    layers: int = Field(default=2, ge=1)
    """Blocks."""
    feed_forward_size: int = Field(default=512, ge=16)
    """Inner width of the feed-forward network."""
    masked_fraction: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens to be told."""


class FineTuneConfig(ReviewTrainConfig):
    """Train the encoder, or a layer on top of it, to tell a review's sentiment."""

    start: Literal["pretrained", "scratch", "frozen"]
    """From the masked-token encoder, from random weights of the same shape, or the encoder's features unchanged."""
    labels: tuple[int, ...] = (100, 1000, 10_000)
    """Numbers of labelled reviews to train on, one model each; the last one is kept."""
    least_steps: int = Field(default=60, ge=1)
    """Optimizer steps at the least, however few labels there are."""


class ClassificationEvaluationConfig(Config):
    """Judge classifiers on held-out reviews."""

    samples: int = Field(default=5, ge=0)
    """Reviews to print."""


class NamesEvaluationConfig(Config):
    """Judge the names that decoders write."""

    samples: int = Field(default=20, ge=0)
    """Digits to print."""
