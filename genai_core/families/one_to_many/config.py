"""Configs of the recurrent decoders that write digits' names."""

from pydantic import Field

from genai_core.config.base import Config
from genai_core.families.config import FamilyConfig
from genai_core.families.images.config import DigitsConfig, ImageTrainConfig
from genai_core.families.recurrent.config import Cell


class OneToManyConfig(ImageTrainConfig):
    """Train a recurrent decoder to write a digit's name, letter by letter, from its image."""

    cell: Cell
    """The recurrent cell of the decoder."""
    hidden_size: int = Field(default=96, ge=8)
    """Size of the hidden state."""
    embedding_size: int = Field(default=16, ge=2)
    """Size of the embedding of a letter."""


class NamesEvaluationConfig(Config):
    """Measure the names that decoders write."""

    samples: int = Field(default=20, ge=0)
    """Number of digits to draw with the names that were written."""


class OneToManyFamily(FamilyConfig):
    """Recurrent cells from an image to its name."""

    digits: DigitsConfig = DigitsConfig()
    rnn_namer: OneToManyConfig
    lstm_namer: OneToManyConfig
    gru_namer: OneToManyConfig
    evaluate: NamesEvaluationConfig = NamesEvaluationConfig()
