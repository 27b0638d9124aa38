"""Who samples the completions of a policy: this process itself, or vLLM beside it (`vllm_sampler.py`)."""

from abc import ABC, abstractmethod
from types import TracebackType

from tokenizers import Tokenizer
from torch import Tensor

from genai_core.config.training import RlhfConfig
from genai_core.data.chat import END_OF_TEXT, end_ids, token_id
from genai_core.inference.generate import Completions, generate
from genai_core.inference.native import has_native_step
from genai_core.inference.sampling import Sampling
from genai_core.models.adapters import has_adapters, merged_copy, without_adapters
from genai_core.models.language_model import LanguageModel
from genai_core.models.transformer import Transformer
from genai_core.training.ranks import Ranks
from genai_core.training.sharding import is_sharded


class Sampler(ABC):
    """Samples completions at the config's temperature from the whole vocabulary; what it has started ends with the
    `with` block."""

    holds_a_copy: bool = False
    """Whether it has weights of its own, which could be others than those that are trained."""
    name: str = "own"
    """What sampled, with its version where it is not of this project."""

    def __init__(self, tokenizer: Tokenizer, config: RlhfConfig):
        self.config = config
        self.end_ids = end_ids(tokenizer)
        self.pad_id = token_id(tokenizer, END_OF_TEXT)

    @abstractmethod
    def complete(self, policy: LanguageModel, prompts: list[list[int]], draws: Tensor | None = None) -> Completions:
        """A completion of each prompt by the policy's weights of now. `draws` (B, N) are numbers from 0 to 1 that alone
        decide what is drawn; PyTorch's generator gives them where they are not given."""

    def close(self) -> None:      # noqa: B027  most have started nothing
        """End what it has started."""

    def __enter__(self) -> "Sampler":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self.close()


class OwnSampler(Sampler):
    """The engine of this project, on the weights that are trained."""

    def complete(self, policy: LanguageModel, prompts: list[list[int]], draws: Tensor | None = None) -> Completions:
        ranks = Ranks.current()      # each token of a policy in parts gathers every block
        was_training = policy.training
        policy.eval()      # layers of `transformers` that make activations again read no cache while they train
        try:
            return generate(merged_for_decoding(policy), prompts, self.config.completion_tokens, self.end_ids,
                            pad_id=self.pad_id, sampling=Sampling(self.config.temperature), draws=draws,
                            go_on=(lambda alive: ranks.on_any(alive)[0]) if is_sharded(policy) else bool)
        finally:
            policy.train(was_training)


def merged_for_decoding(policy: LanguageModel) -> LanguageModel:
    """The policy; where nothing but its adapters keeps it from the step in C, a copy with these merged, which takes the
    memory of the adapted weights for as long as it is held."""
    whole = type(policy) is Transformer and not is_sharded(policy)      # parts cannot be copied
    if whole and has_adapters(policy) and has_native_step(without_adapters(policy)):
        return merged_copy(policy)
    return policy
