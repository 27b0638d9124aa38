"""Configs of language models of tunes."""

from pydantic import Field

from genai_core.config.data import TokenizeConfig
from genai_core.config.training import PretrainConfig
from genai_core.families.config import FamilyConfig
from genai_core.families.recurrent.config import CharacterEvaluationConfig, RecurrentConfig


class TuneEvaluationConfig(CharacterEvaluationConfig):
    """Measure models of music in ABC notation."""

    prompt: str = "X:1\nT:"
    """Text that the samples continue."""
    tunes: int = Field(default=40, ge=1)
    """Number of tunes to sample, of which the share that parses and is in time is taken."""
    sample_tokens: int = Field(default=500, ge=10)
    """Longest tune, in tokens."""


class MusicFamily(FamilyConfig):
    """Folk music in ABC notation."""

    tune_characters: TokenizeConfig
    tune_lstm: RecurrentConfig
    tune_transformer: PretrainConfig
    evaluate: TuneEvaluationConfig = TuneEvaluationConfig()
