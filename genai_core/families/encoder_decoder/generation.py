"""Opening a model that turns one text into another, and decoding with it."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from genai_core.errors import InputError
from genai_core.families.directory import load_into, read_shape
from genai_core.families.encoder_decoder.interface import EncoderDecoder, greedy_decode
from genai_core.families.encoder_decoder.pairs import PairCodec
from genai_core.families.encoder_decoder.recurrent import RecurrentSeq2Seq, Seq2SeqShape
from genai_core.families.encoder_decoder.transformer import T5, T5Shape
from genai_core.inference.sampling import Sampling
from genai_core.models.kinds import open_model
from genai_core.models.opened import Opened, kind_of

BATCH = 64


class PairModel(Opened):
    """An encoder-decoder and its vocabulary: it turns one text into another."""

    produces = "text"
    model: EncoderDecoder

    def __init__(self, directory: Path, model: RecurrentSeq2Seq | T5, device: torch.device):
        super().__init__(directory, load_into(model, directory, device), device)
        self.codec = PairCodec.load(directory, model.shape.source_tokens, model.shape.target_tokens)

    def complete(self, prompt: str, max_new_tokens: int, sampling: Sampling, seed: int | None = None) -> Iterator[str]:
        """The target of `prompt` by greedy decoding, in one piece, of the length that the model was trained for."""
        yield self.answer([prompt])[0]

    def answer(self, sources: list[str]) -> list[str]:
        """Target of each source by greedy decoding."""
        order = sorted(range(len(sources)), key=lambda number: len(sources[number]))
        answers = [""] * len(sources)
        for first in range(0, len(order), BATCH):
            numbers = order[first:first + BATCH]
            ids, _ = self._decode([sources[number] for number in numbers])
            for number, row in zip(numbers, ids.tolist(), strict=True):
                answers[number] = self.codec.text(row)
        return answers

    def attention(self, source: str) -> tuple[list[str], list[str], Tensor] | None:
        """S tokens of a source, T tokens of the answer, and the weights (T, S) by which these attended to those; None
        for a model without attention."""
        ids, attention = self._decode([source])
        if attention is None:
            return None
        answer = ids[0].tolist()
        length = answer.index(self.codec.end) + 1 if self.codec.end in answer else len(answer)
        source_tokens = [self._shown(token) for token in self.codec.sources([source])[0]]
        answer_tokens = [self._shown(token) for token in answer[:length]]
        return source_tokens, answer_tokens, attention[0, :length].float().cpu()

    def _decode(self, sources: list[str]) -> tuple[Tensor, Tensor | None]:
        padded = self.codec.padded(self.codec.sources(sources)).to(self.device)
        return greedy_decode(self.model, padded, padded != self.codec.pad, self.codec.start, self.codec.end,
                             self.codec.target_tokens)

    def _shown(self, token: int) -> str:
        return "end" if token == self.codec.end else self.codec.tokenizer.decode([token]) or "?"


def open_recurrent(directory: Path, device: torch.device) -> PairModel:
    return PairModel(directory, RecurrentSeq2Seq(read_shape(directory, Seq2SeqShape)), device)


def open_transformer(directory: Path, device: torch.device) -> PairModel:
    return PairModel(directory, T5(read_shape(directory, T5Shape)), device)


def open_pair_model(directory: Path, device: torch.device) -> PairModel:
    """The encoder-decoder of a directory, of whatever kind. Raises InputError for any other directory."""
    opened = open_model(directory, device)
    if not isinstance(opened, PairModel):
        raise InputError(f"{directory}: a model of kind {kind_of(directory)} does not turn one text into another")
    return opened
