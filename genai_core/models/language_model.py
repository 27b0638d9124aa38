"""What the trainer, the sampler and the evaluation need of a language model, whatever its architecture."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class LanguageModel(nn.Module, ABC):
    """Base of the architectures. Shapes: B sequences, T tokens, C hidden size, V vocabulary."""

    config: Any
    """A dataclass with the shape of the model."""
    reads_on: bool = False
    """Whether it reads past its `context_length`: a recurrent model does."""

    @property
    @abstractmethod
    def context_length(self) -> int:
        """The longest sequence that the model was made for, in tokens."""

    @abstractmethod
    def hidden(self, ids: Tensor, positions: Tensor | None = None, mask: Tensor | None = None,
               cache: Any = None) -> Tensor:
        """Hidden states (B, T, C) of token ids (B, T)."""

    @abstractmethod
    def logits(self, states: Tensor) -> Tensor:
        """Hidden states (…, C) to logits (…, V)."""

    @abstractmethod
    def new_cache(self, batch: int, capacity: int) -> Any:
        """What the model remembers between calls, for `batch` sequences of up to `capacity` tokens."""

    @abstractmethod
    def training_flops_per_token(self, length: int) -> float:
        """Floating-point operations of forward and backward for one token in a row of `length`."""

    def forward(self, ids: Tensor, positions: Tensor | None = None, mask: Tensor | None = None,
                cache: Any = None) -> Tensor:
        """Logits (B, T, V) of the token that follows each of `ids` (B, T)."""
        return self.logits(self.hidden(ids, positions, mask, cache))
