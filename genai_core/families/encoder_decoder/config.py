"""Configs of the families that turn one text into another."""

from typing import Literal

from pydantic import Field

from genai_core.config.base import Config
from genai_core.config.training import TrainConfig
from genai_core.families.config import FamilyConfig
from genai_core.families.recurrent.config import Cell

Task = Literal["translate", "sentiment", "title"]


class PairsConfig(Config):
    """Pairs of source and target text, and the vocabulary of both."""

    tasks: tuple[Task, ...] = ("translate",)
    """`translate`: English to Spanish; `sentiment`: a review to positive or negative; `title`: a section to its
    heading. With several, each source begins with the task's name."""
    vocab_size: int = Field(default=4096, ge=300, le=65_536)
    """Entries of the vocabulary, special tokens included."""
    source_tokens: int = Field(default=40, ge=4)
    """Longest source, in tokens; a longer one loses its end."""
    target_tokens: int = Field(default=40, ge=4)
    """Longest target, in tokens, likewise."""
    train_pairs: int = Field(default=40_000, ge=10)
    """Most training pairs of each task, taken at even distances over the source."""
    held_out_pairs: int = Field(default=500, ge=10)
    """Most validation pairs and most test pairs of each task, likewise."""


class PairTrainConfig(TrainConfig):
    """What every training on pairs needs."""

    pairs: int = Field(ge=1)
    """Pairs to train on, repetitions counted."""
    evaluations: int = Field(default=3, ge=1)
    """Number of times that the validation loss is measured, the last time at the end."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target's probability that is spread over all tokens."""


class Seq2SeqConfig(PairTrainConfig):
    """Train a recurrent encoder and decoder."""

    cell: Cell = "gru"
    """Recurrent cell of encoder and decoder."""
    attention: Literal["none", "bahdanau", "luong"] = "none"
    """Attention of the decoder to the source: none, by an additive or by a multiplicative score."""
    embedding_size: int = Field(default=128, ge=4)
    """Size of the embedding of a token."""
    hidden_size: int = Field(default=256, ge=8)
    """Size of the hidden state of the decoder; the encoder has half of it in each direction."""


class EncoderDecoderConfig(PairTrainConfig):
    """Train an encoder-decoder transformer."""

    hidden_size: int = Field(default=192, ge=16)
    """Width of the residual stream."""
    heads: int = Field(default=4, ge=1)
    """Number of attention heads, which divides the width."""
    encoder_layers: int = Field(default=2, ge=1)
    """Number of blocks of the encoder."""
    decoder_layers: int = Field(default=2, ge=1)
    """Number of blocks of the decoder."""
    feed_forward_size: int = Field(default=512, ge=16)
    """Inner width of the feed-forward network."""


class PairEvaluationConfig(Config):
    """Measure models on held-out pairs."""

    pairs: int = Field(default=400, ge=10)
    """Most test pairs of each task."""
    length_bounds: tuple[int, ...] = (4, 6, 8)
    """Lengths of the source, in words, at which a new group of lengths begins."""
    samples: int = Field(default=6, ge=0)
    """Number of pairs of each task to print."""


class ManyToManyFamily(FamilyConfig):
    """Recurrent cells from sequence to sequence."""

    pairs: PairsConfig = PairsConfig()
    rnn_translator: Seq2SeqConfig
    lstm_translator: Seq2SeqConfig
    gru_translator: Seq2SeqConfig
    evaluate: PairEvaluationConfig = PairEvaluationConfig()


class Seq2SeqFamily(FamilyConfig):
    """Sequence to sequence, without and with attention."""

    pairs: PairsConfig = PairsConfig()
    no_attention: Seq2SeqConfig
    bahdanau: Seq2SeqConfig
    luong: Seq2SeqConfig
    evaluate: PairEvaluationConfig = PairEvaluationConfig()


class T5Family(FamilyConfig):
    """An encoder-decoder transformer, text to text."""

    pairs: PairsConfig
    t5: EncoderDecoderConfig
    luong: Seq2SeqConfig
    evaluate: PairEvaluationConfig = PairEvaluationConfig()
