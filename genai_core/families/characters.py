"""Bits per character of held-out text: of language models, and of n-grams over the same training text."""

import math
from pathlib import Path

import torch

from genai_core.data.tokens.token_files import TokenFile, read_tokens
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.evaluation.baselines.simple import ByteNgrams
from genai_core.evaluation.bits_per_byte import held_out_loss, token_byte_lengths
from genai_core.models.language_model import LanguageModel


class HeldOutCharacters:
    """The first tokens of the test split of the source that comes first, and the text that they stand for.

    The first token is context only: it is not predicted.
    """

    def __init__(self, tokens: Path, limit: int):
        self.tokenizer = load_tokenizer(tokens)
        self.file = read_tokens(tokens, sorted(path.stem for path in tokens.glob("test.*.bin"))[0])
        self.text = self.tokenizer.decode(self.file.ids[1:limit + 1].tolist(), skip_special_tokens=True)
        self._directory, self._limit = tokens, limit
        self._byte_lengths = token_byte_lengths(self.tokenizer)

    def bits(self, model: LanguageModel, device: torch.device, length: int | None = None, overlap: bool = False
             ) -> float:
        """Bits per character of a model, in windows of `length` tokens, by default its context; `overlap` is that of
        `held_out_loss`."""
        loss = held_out_loss(model, self.file, self._byte_lengths, length or model.context_length,
                             max_tokens=self._limit, device=device, precision=torch.float32, overlap=overlap)
        return loss.nats / math.log(2) / len(self.text)

    def ngram_bits(self, order: int) -> float:
        """Bits per character of byte n-grams counted in the training text."""
        train = read_tokens(self._directory, "train")
        counted = self.tokenizer.decode(train.ids.tolist(), skip_special_tokens=True).encode()
        text = self.text.encode()
        bits = ByteNgrams(order).bits_per_byte(counted, {"held out": text})["held out"]
        return bits * len(text) / len(self.text)


def read_documents(file: TokenFile) -> list[list[int]]:
    """Token ids of each document, without the end token."""
    ends = [*file.starts[1:].tolist(), len(file.ids)]
    return [file.ids[start:end - 1].tolist() for start, end in zip(file.starts.tolist(), ends, strict=True)]
