"""Configs of the recurrent classifiers of reviews."""

from pydantic import Field

from genai_core.families.classification.config import ClassificationEvaluationConfig, ReviewsConfig, ReviewTrainConfig
from genai_core.families.config import FamilyConfig
from genai_core.families.recurrent.config import Cell


class ManyToOneConfig(ReviewTrainConfig):
    """Train a recurrent layer to classify a review's sentiment by its last state."""

    cell: Cell
    """The recurrent cell."""
    embedding_size: int = Field(default=64, ge=4)
    """Size of the embedding of a token."""
    hidden_size: int = Field(default=128, ge=8)
    """Size of the hidden state."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of the embedding's dimensions that are set to 0 at random in training."""


class ManyToOneFamily(FamilyConfig):
    """Recurrent cells from a text to its label."""

    reviews: ReviewsConfig
    rnn_classifier: ManyToOneConfig
    lstm_classifier: ManyToOneConfig
    gru_classifier: ManyToOneConfig
    evaluate: ClassificationEvaluationConfig = ClassificationEvaluationConfig()
