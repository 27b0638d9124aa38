"""Configs of the stages that decide on a model: quantize, evaluate, promote."""

from typing import Literal

from pydantic import Field

from genai_core.config.base import Config


class QuantizeConfig(Config):
    """Store the weights in eight and in four bits."""

    int4_group_size: int = Field(default=16, ge=8)
    """Number of weights that share a scale and an offset in the four-bit model."""
    calibration_tokens: int = Field(default=32_768, ge=0)
    """Tokens of training chats on which rounding to four bits keeps what the layers compute; 0 rounds each weight by
    itself."""
    decode_tokens: int = Field(default=128, ge=8)
    """Tokens to generate for the measurement of speed."""
    validation_tokens: int = Field(default=65_536, ge=1024)
    """Most validation tokens of each source for the comparison with full precision."""


class EvaluateConfig(Config):
    """The same table of figures for every language model of the run."""

    bits_per_byte_tokens: int = Field(default=131_072, ge=1024)
    """Most held-out tokens of each source for bits per byte."""
    sentiment_reviews: int = Field(default=1000, ge=10)
    """Number of held-out reviews to classify."""
    translations: int = Field(default=2000, ge=10)
    """Number of held-out sentences to translate."""
    titles: int = Field(default=1000, ge=10)
    """Number of held-out texts to give a title."""
    trivia_questions: int = Field(default=1000, ge=10)
    """Number of held-out questions to answer."""
    reward_prompts: int = Field(default=512, ge=8)
    """Number of held-out openings to continue, which the reward model and the gold reward score."""
    samples: int = Field(default=3, ge=0)
    """Number of answers to each task that the report prints."""
    seed: int = Field(default=0, ge=0)
    """Seed of the choice of questions and of sampling."""


Comparison = Literal["<=", ">="]


class Gate(Config):
    """One condition that a release must meet: `figure` compared with `bound` (plus `reference`, where given)."""

    figure: str
    """Name in the table, as `model/figure`, for example `int8/bits_per_byte`."""
    comparison: Comparison
    """Side of the bound on which the figure must lie."""
    bound: float
    """The bound, or what is added to the reference."""
    reference: str | None = None
    """Name of another figure that the bound is relative to."""
    relative: bool = False
    """Whether `bound` is a factor of the reference (1.005 is half a percent above it) instead of a difference."""


class Pair(Config):
    """A model that must not be worse than another one on the same held-out questions, beyond noise."""

    model: str
    """Column of the table, for example `rlhf`."""
    against: str
    """Column that it is held against: `baseline`, another model of the run, or `champion` and `champion_base`, the
    models of the release in service; without one the pair is left out, and said so."""
    tasks: bool = True
    """Whether to compare every task that both have a figure of."""
    bits_per_byte: float | None = Field(default=None, ge=0)
    """Most that bits per byte may rise, on each held-out file; empty where they are not compared."""
    gold_reward: float | None = None
    """Least gain of the gold reward of sampled answers, in standard deviations of the instruct model's; that of the
    likeliest answers must not fall. Empty where it is not compared."""


class Margins(Config):
    """Most that a task may lose, by the ending of its figure's name."""

    accuracy: float = Field(default=0.02, ge=0)
    """Share of the questions."""
    exact_match: float = Field(default=0.02, ge=0)
    """Share of the questions."""
    chrf: float = Field(default=1.0, ge=0)
    """Points of chrF, of a hundred."""


class PromoteConfig(Config):
    """What a release must show before it is put in service."""

    gates: dict[str, Gate] = Field(default_factory=dict)
    """Conditions on single figures, each by its name."""
    pairs: dict[str, Pair] = Field(default_factory=dict)
    """Comparisons of two models, each by its name: the 95 % interval of the paired difference, corrected for the number
    of tasks that they are compared on, must lie within the margin."""
    margins: Margins = Margins()
    """Most that a task may lose."""
