"""Configs of the recurrent family."""

from typing import Literal

from pydantic import Field

from genai_core.config.base import Config
from genai_core.config.data import TokenizeConfig
from genai_core.config.training import LanguageModelConfig, PretrainConfig
from genai_core.families.config import FamilyConfig

Cell = Literal["rnn", "lstm", "gru"]


class RecurrentConfig(LanguageModelConfig):
    """Train a language model of recurrent layers."""

    cell: Cell
    """Recurrent cell: Elman's, the long short-term memory, or the gated recurrent unit."""
    layers: int = Field(default=2, ge=1, le=16)
    """Number of stacked recurrent layers."""
    hidden_size: int = Field(default=256, ge=8)
    """Size of the hidden state of a layer."""
    embedding_size: int = Field(default=64, ge=4)
    """Size of the embedding of a token."""


class CharacterEvaluationConfig(Config):
    """Compare language models on held-out characters."""

    held_out_tokens: int = Field(default=100_000, ge=1024)
    """Most held-out tokens that are scored."""
    ngram_order: int = Field(default=5, ge=1, le=7)
    """Order of the byte n-grams that the models are compared with."""
    memory_lengths: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Distances at which the norm of the gradient is measured, in steps."""
    prompt: str = "KING. "
    """Text that the samples continue."""
    sample_tokens: int = Field(default=300, ge=10)
    """Length of each sample, in tokens."""
    temperature: float = Field(default=0.8, ge=0)
    """Temperature of the samples; 0 takes the likeliest token."""


class RecurrentFamily(FamilyConfig):
    """Language models of recurrent cells, on characters."""

    characters: TokenizeConfig
    rnn: RecurrentConfig
    lstm: RecurrentConfig
    gru: RecurrentConfig
    character_transformer: PretrainConfig
    evaluate: CharacterEvaluationConfig = CharacterEvaluationConfig()
