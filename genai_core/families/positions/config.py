"""Configs of transformers that differ in how they know positions, or in how they are optimised."""

from typing import Literal

from pydantic import Field

from genai_core.config.base import Config
from genai_core.config.data import TokenizeConfig
from genai_core.config.training import LanguageModelConfig
from genai_core.families.config import FamilyConfig


class PositionalConfig(LanguageModelConfig):
    """Train a small causal transformer, to compare how it knows positions or how it is optimised."""

    positions: Literal["sinusoidal", "learned", "rotary", "none"] = "rotary"
    """How the model knows where a token stands."""
    layers: int = Field(default=2, ge=1, le=16)
    """Number of blocks."""
    hidden_size: int = Field(default=128, ge=16)
    """Width of the residual stream."""
    heads: int = Field(default=4, ge=1)
    """Number of attention heads, which divides the width."""
    feed_forward_size: int = Field(default=512, ge=16)
    """Inner width of the feed-forward network."""


class ComparisonEvaluationConfig(Config):
    """Compare trainings that differ in one thing."""

    held_out_tokens: int = Field(default=60_000, ge=1024)
    """Most held-out tokens that are scored."""
    stretch: float = Field(default=2.0, ge=1)
    """Length of further windows that are scored, as a multiple of those of training; 1 scores none."""


class PositionsFamily(FamilyConfig):
    """How a transformer knows positions."""

    characters: TokenizeConfig
    sinusoidal_positions: PositionalConfig
    learned_positions: PositionalConfig
    rotary_positions: PositionalConfig
    no_positions: PositionalConfig
    evaluate: ComparisonEvaluationConfig = ComparisonEvaluationConfig()


class OptimizersFamily(FamilyConfig):
    """SGD, Adam and Muon."""

    characters: TokenizeConfig
    sgd_optimizer: PositionalConfig
    adam_optimizer: PositionalConfig
    muon_optimizer: PositionalConfig
    evaluate: ComparisonEvaluationConfig = ComparisonEvaluationConfig()
