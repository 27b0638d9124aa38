"""Opening a model that turns one text into another, and letting it answer."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from genai_core.errors import InputError
from genai_core.families.directory import load_into, read_shape
from genai_core.families.encoder_decoder.interface import EncoderDecoder, write
from genai_core.families.encoder_decoder.pairs import PairCodec
from genai_core.families.encoder_decoder.recurrent import RecurrentSeq2Seq, Seq2SeqShape
from genai_core.families.encoder_decoder.transformer import T5, T5Shape
from genai_core.inference.generate import Sampling
from genai_core.models.kinds import Opened, kind_of, open_model

BATCH = 64


class PairModel(Opened):
    """An encoder-decoder and its vocabulary."""

    produces = "text"
    model: EncoderDecoder

    def __init__(self, directory: Path, model: RecurrentSeq2Seq | T5, device: torch.device):
        super().__init__(directory, load_into(model, directory, device), device)
        self.codec = PairCodec.load(directory, model.shape.source_tokens, model.shape.target_tokens)

    def complete(self, prompt: str, max_new_tokens: int, sampling: Sampling, seed: int | None = None) -> Iterator[str]:
        """The likeliest target of `prompt` in one piece; its length is what the model was trained for."""
        yield self.answer([prompt])[0]

    def answer(self, sources: list[str]) -> list[str]:
        """The likeliest target of each source, token by token."""
        order = sorted(range(len(sources)), key=lambda number: len(sources[number]))
        answers = [""] * len(sources)
        for first in range(0, len(order), BATCH):
            numbers = order[first:first + BATCH]
            ids, _ = self._write([sources[number] for number in numbers])
            for number, row in zip(numbers, ids.tolist(), strict=True):
                answers[number] = self.codec.text(row)
        return answers

    def looks(self, source: str) -> tuple[list[str], list[str], Tensor | None]:
        """Tokens of a source, of the answer, and where each of those looked, (T, S)."""
        tokens = [self._shown(token) for token in self.codec.sources([source])[0]]
        ids, attention = self._write([source])
        row = ids[0].tolist()
        length = row.index(self.codec.end) + 1 if self.codec.end in row else len(row)
        return tokens, [self._shown(token) for token in row[:length]], \
            None if attention is None else attention[0, :length].float().cpu()

    def _write(self, sources: list[str]) -> tuple[Tensor, Tensor | None]:
        padded = self.codec.padded(self.codec.sources(sources)).to(self.device)
        return write(self.model, padded, padded != self.codec.pad, self.codec.start, self.codec.end,
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
