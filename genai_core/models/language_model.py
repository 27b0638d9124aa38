"""What the trainer, the sampler and the evaluation need of a language model, whatever its architecture."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from genai_core.models.cache import PromptCache


class LanguageModel(nn.Module, ABC):
    """Base of the architectures.

    Shapes: B sequences, T tokens, S tokens with those of a cache, C hidden size, V vocabulary.
    """

    config: Any
    """Dataclass of the sizes that the model is built from."""
    unbounded_context: bool = False
    """Whether it can read past its `context_length`, as a recurrent model can."""

    @property
    @abstractmethod
    def context_length(self) -> int:
        """Longest sequence that the model was made for, in tokens."""

    @abstractmethod
    def hidden(self, ids: Tensor, position_ids: Tensor | None = None, mask: Tensor | None = None,
               cache: Any = None) -> Tensor:
        """Hidden states (B, T, C) of token ids (B, T).

        `position_ids` (B, T) default to 0, 1, 2, … after what the cache holds. `mask` (B, 1, T, S) is True where a
        query may attend to a key; the default is causal. A cache grows by T tokens.
        """

    def read(self, ids: Tensor, lengths: Tensor, cache: Any) -> Tensor:
        """Hidden states (B, C) of the last tokens of rows (B, T), of which row b has `lengths[b]` tokens and padding on
        the right. The cache grows by the tokens alone."""
        states = self.hidden(ids, cache=cache)
        cache.grow(lengths - ids.shape[1])      # what pads is overwritten by what comes
        return states[torch.arange(len(ids), device=ids.device), lengths - 1]

    @abstractmethod
    def logits(self, states: Tensor) -> Tensor:
        """Logits (…, V) of the next token for hidden states (…, C)."""

    @property
    def head_weight(self) -> Tensor | None:
        """The matrix (V, C) that `logits` multiplies hidden states with, where it is nothing else."""
        return None

    @abstractmethod
    def new_cache(self, batch: int, capacity: int) -> Any:
        """An empty cache: what the model remembers between calls, for `batch` sequences of up to `capacity` tokens. It
        has `grow` and `put` as `KeyValueCache` does."""

    def prompt_cache(self) -> PromptCache | None:
        """What several completions of a prompt go on from in training, so that the prompt is read once; None where the
        architecture has no such thing, or the activations of its blocks are made again in the backward pass."""
        return None

    @abstractmethod
    def training_flops_per_token(self, length: int) -> float:
        """Floating-point operations of the forward and backward pass for one token of a sequence of `length` tokens."""

    def forward(self, ids: Tensor, position_ids: Tensor | None = None, mask: Tensor | None = None,
                cache: Any = None) -> Tensor:
        """Logits (B, T, V) of the token that follows each of `ids` (B, T); the rest is as in `hidden`."""
        return self.logits(self.hidden(ids, position_ids, mask, cache))
