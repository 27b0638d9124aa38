"""What the trainer, the sampler and the evaluation need of a language model, whatever its architecture."""

from typing import Any

from torch import Tensor, nn


class LanguageModel(nn.Module):
    """Base of the architectures. Shapes: B sequences, T tokens, C hidden size, V vocabulary."""

    config: Any
    """A dataclass with the shape of the model."""

    @property
    def context_length(self) -> int:
        """The longest sequence that the model was made for, in tokens."""
        raise NotImplementedError

    def hidden(self, ids: Tensor, positions: Tensor | None = None, mask: Tensor | None = None,
               cache: Any = None) -> Tensor:
        """Hidden states (B, T, C) of token ids (B, T)."""
        raise NotImplementedError

    def logits(self, states: Tensor) -> Tensor:
        """Hidden states (…, C) to logits (…, V)."""
        raise NotImplementedError

    def new_cache(self, batch: int, capacity: int) -> Any:
        """What the model remembers between calls, for `batch` sequences of up to `capacity` tokens."""
        raise NotImplementedError

    def training_flops_per_token(self, length: int) -> float:
        """Floating-point operations of forward and backward for one token in a row of `length`."""
        raise NotImplementedError

    def forward(self, ids: Tensor, positions: Tensor | None = None, mask: Tensor | None = None,
                cache: Any = None) -> Tensor:
        """Logits (B, T, V) of the token that follows each of `ids` (B, T)."""
        return self.logits(self.hidden(ids, positions, mask, cache))
