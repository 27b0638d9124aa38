"""Configs of the stages that decide on a model: quantize, evaluate, promote."""

from typing import Literal

from pydantic import Field

from genai_core.config.base import Config


class QuantizeConfig(Config):
    """Store the weights in eight and in four bits."""

    int4_group_size: int = Field(default=32, ge=8)
    """Weights that share one scale and offset in the four-bit model."""
    decode_tokens: int = Field(default=128, ge=8)
    """Tokens generated to measure the speed."""
    validation_tokens: int = Field(default=65_536, ge=1024)
    """Held-out tokens of each source for the comparison with full precision."""


class EvaluateConfig(Config):
    """The same table of figures for every language model of the run."""

    bits_per_byte_tokens: int = Field(default=131_072, ge=1024)
    """Most held-out tokens of each source."""
    sentiment_reviews: int = Field(default=400, ge=10)
    """Held-out reviews to classify."""
    translations: int = Field(default=200, ge=10)
    """Held-out sentences to translate."""
    titles: int = Field(default=200, ge=10)
    """Held-out texts to give a title."""
    trivia_questions: int = Field(default=200, ge=10)
    """Held-out questions to answer."""
    reward_prompts: int = Field(default=128, ge=8)
    """Held-out openings to continue and score with the reward model."""
    samples: int = Field(default=3, ge=0)
    """Answers of each task to print in the report."""
    seed: int = Field(default=0, ge=0)
    """Seed of what is sampled."""


Comparison = Literal["<=", ">="]


class Gate(Config):
    """One condition that a release must meet: `figure` compared with `bound` (plus `reference`, where given)."""

    figure: str
    """Name in the table, as `model/figure`, for example `int8/bits_per_byte`."""
    comparison: Comparison
    """On which side of the bound the figure must lie."""
    bound: float
    """The bound itself, or what is added to the reference."""
    reference: str | None = None
    """Another figure: the bound is relative to it."""
    relative: bool = False
    """With a reference: bound is a factor of it (1.005 is half a percent above), not a difference."""


class PromoteConfig(Config):
    """Which figures a release must reach before the alias `champion` moves to it."""

    gates: dict[str, Gate] = Field(default_factory=dict)
    """Name of each gate and its condition."""
