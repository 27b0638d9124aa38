"""Loading a model that turns one text into another, and letting it answer."""

from pathlib import Path

import torch
from torch import Tensor

from genai_core.errors import InputError
from genai_core.families.directory import load_into, model_type_of, read_shape
from genai_core.families.encoder_decoder.interface import EncoderDecoder, write
from genai_core.families.encoder_decoder.pairs import PairCodec
from genai_core.families.encoder_decoder.recurrent import RecurrentSeq2Seq, Seq2SeqShape
from genai_core.families.encoder_decoder.transformer import T5, T5Shape

MODELS = {"seq2seq": (RecurrentSeq2Seq, Seq2SeqShape), "t5": (T5, T5Shape)}
BATCH = 64


class PairModel:
    """An encoder-decoder and its vocabulary."""

    def __init__(self, directory: Path, device: torch.device):
        kind = model_type_of(directory)
        if kind not in MODELS:
            raise InputError(f"{directory}: a model of type {kind or 'language model'} does not turn one text into "
                             "another")
        architecture, shape_type = MODELS[kind]
        shape = read_shape(directory, shape_type)
        self.model: EncoderDecoder = architecture(shape)
        load_into(self.model, directory, device)
        self.codec = PairCodec.load(directory, shape.source_tokens, shape.target_tokens)
        self.device = device

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
