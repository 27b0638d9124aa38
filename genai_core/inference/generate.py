"""Continuing token ids with a language model: a batch of prompts of different lengths, or one as a stream."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from torch import Tensor

from genai_core.data.tokens.batches import pad
from genai_core.inference.engine import Completion, Engine
from genai_core.inference.sampling import Sampling, uniform_numbers
from genai_core.models.language_model import LanguageModel


@dataclass(frozen=True)
class Completions:
    """What a model wrote after each of B prompts, up to N tokens."""

    ids: Tensor
    """Token ids (B, N), padded after the end token."""
    mask: Tensor
    """(B, N): True up to the end token, that one included."""
    log_probs: Tensor
    """Log-probability (B, N) of each token in the distribution that it was drawn from; 0 on padding."""

    def unpadded(self) -> list[list[int]]:
        """Token ids of each completion, the end token included."""
        return [ids[mask].tolist() for ids, mask in zip(self.ids.cpu(), self.mask.cpu(), strict=True)]


def generate(model: LanguageModel, prompts: list[list[int]], max_new_tokens: int, end_ids: set[int], *, pad_id: int,
             sampling: Sampling | None = None, seeds: list[int] | None = None, draws: Tensor | None = None,
             slots: int = 0, go_on: Callable[[bool], bool] = bool) -> Completions:
    """Continue each prompt, given as token ids, until an end token or for `max_new_tokens`.

    Tokens are drawn by `draws` (B, N), numbers from 0 to 1, or by those of a seed for each prompt, else by PyTorch's
    own generator. At most `slots` prompts are decoded at a time, all where it is 0. `go_on` is as in `Engine.run`.
    Raises ValueError for an empty prompt.
    """
    if seeds is not None:
        draws = uniform_numbers(seeds, max_new_tokens)
    engine = Engine(model, min(slots or len(prompts), len(prompts)), max(map(len, prompts)) + max_new_tokens,
                    new_tokens=max_new_tokens, end_ids=end_ids, pad_id=pad_id, sampling=sampling)
    return collected(engine, engine.run(prompts, draws, go_on))


def collected(engine: Engine, completions: Iterator[Completion]) -> Completions:
    """Completions as tensors, in the order of their prompts."""
    ordered = sorted(completions, key=lambda each: each.prompt)
    ids, mask = pad([each.ids for each in ordered], engine.pad_id, "right")
    log_probs = torch.zeros(ids.shape)
    log_probs[mask] = torch.tensor([value for each in ordered for value in each.log_probs])
    return Completions(ids.to(engine.device), mask.to(engine.device), log_probs.to(engine.device))


def stream(model: LanguageModel, prompt: list[int], max_new_tokens: int, end_ids: set[int],
           sampling: Sampling | None = None, seed: int | None = None) -> Iterator[int]:
    """Token ids of one completion, one by one as they are sampled, without the end token."""
    engine = Engine(model, 1, len(prompt) + max_new_tokens, new_tokens=max_new_tokens, end_ids=end_ids, pad_id=0,
                    sampling=sampling)
    return engine.stream(prompt, None if seed is None else uniform_numbers([seed], max_new_tokens))


def text_pieces(tokenizer: Tokenizer, tokens: Iterator[int], stops: tuple[str, ...] = ()) -> Iterator[str]:
    """Text of a stream of token ids, in pieces of whole characters: one may take several tokens. It ends before the
    first of `stops`; what may be the beginning of one is held back."""
    decoder, held = DecodeStream(skip_special_tokens=True), ""
    for token in tokens:
        held += decoder.step(tokenizer, token) or ""
        if found := [held.index(stop) for stop in stops if stop in held]:
            if text := held[:min(found)]:
                yield text
            return
        size = len(held) - _beginning_of_a_stop(held, stops)
        if size:
            yield held[:size]
            held = held[size:]
    if held:
        yield held


def _beginning_of_a_stop(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of a text may be the beginning of a stop."""
    return max((size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)
