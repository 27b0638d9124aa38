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
    """Number of attention heads, which divides the width."""
    layers: int = Field(default=2, ge=1)
    """Number of blocks."""
    feed_forward_size: int = Field(default=512, ge=16)
    """Inner width of the feed-forward network."""
    masked_fraction: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are targets."""


class FineTuneConfig(ReviewTrainConfig):
    """Train the encoder, or a layer on top of it, to classify a review's sentiment."""

    start: Literal["pretrained", "scratch", "frozen"]
    """What training starts from: the masked-token encoder, random weights of the same shape, or the encoder's features,
    which then stay as they are."""
    labels: tuple[int, ...] = (100, 1000, 10_000)
    """Numbers of labelled reviews to train on, one model for each; the last model is kept."""
    least_steps: int = Field(default=60, ge=1)
    """Least number of optimizer steps, however few labels there are."""


class BertFamily(FamilyConfig):
    """A bidirectional encoder: masked tokens, then few labels."""

    reviews: ReviewsConfig
    masked_encoder: MaskedConfig
    fine_tuned: FineTuneConfig
    frozen_features: FineTuneConfig
    from_scratch: FineTuneConfig
    evaluate: ClassificationEvaluationConfig = ClassificationEvaluationConfig()
