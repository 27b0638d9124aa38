"""Configs of the bidirectional encoder."""

from typing import Literal

from pydantic import Field

from genai_core.families.classification.config import ClassificationEvaluationConfig, ReviewsConfig, ReviewTrainConfig
from genai_core.families.config import FamilyConfig


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


class BertFamily(FamilyConfig):
    """A bidirectional encoder: masked tokens, then few labels."""

    reviews: ReviewsConfig
    masked_encoder: MaskedConfig
    fine_tuned: FineTuneConfig
    frozen_features: FineTuneConfig
    from_scratch: FineTuneConfig
    evaluate: ClassificationEvaluationConfig = ClassificationEvaluationConfig()
