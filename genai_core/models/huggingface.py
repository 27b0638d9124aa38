"""Any decoder-only layout that `transformers` knows, as a language model of this project: the one file that wraps them.

Shapes: B sequences, T tokens, S tokens with those of a cache, C hidden size, V vocabulary.

The masks are always this project's own, so that packed rows, rows padded on either side and rows of a cache, each of
its own length, mean the same for every layout. `transformers` is imported when such a model is opened.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genai_core.errors import InputError
from genai_core.models.cache import KeyValueCache, PromptCache
from genai_core.models.flops import flops_per_token
from genai_core.models.four_bit import number_of_weights
from genai_core.models.language_model import LanguageModel
from genai_core.models.masks import causal_mask

KNOWN_LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers that a key-value cache and a mask are all of."""
_COMPUTED = re.compile(r"\.attn\.(masked_)?bias$|inv_freq$")
"""What files of earlier versions of `transformers` hold beside the weights: causal masks and frequencies."""


@dataclass(frozen=True)
class HuggingFaceConfig:
    """The config of such a model, as its `config.json` has it."""

    values: dict[str, Any]

    @cached_property
    def native(self) -> Any:
        """The config as `transformers` reads it, without dropout: a policy that is trained is the one that is sampled.

        Raises InputError for a layout that it does not know, or that is no decoder.
        """
        require_transformers()
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        values = dict(self.values)
        layout = str(values.pop("model_type", ""))
        if layout not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise InputError(f"transformers {_version()} knows no decoder-only layout {layout or 'without a name'!r}; "
                             "layouts that are run here are qwen3 and those of its AutoModelForCausalLM")
        try:
            config = AutoConfig.for_model(layout, **values)
            fields = config.to_dict()
        except Exception as error:      # whatever its checks of a config raise
            raise InputError(f"config.json: transformers takes it for none of the layout {layout} "
                             f"({type(error).__name__}: {_first_line(error)})") from None
        if config.get_text_config() is not config:
            raise InputError(f"the layout {layout} is of a model that reads more than text; name one of its text part "
                             "alone" + (" (gemma3_text)" if layout == "gemma3" else ""))
        for name, value in fields.items():
            if "drop" in name and isinstance(value, float):
                setattr(config, name, 0.0)
        if unknown := set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYERS:
            raise InputError(f"the layout {layout} has layers of {', '.join(sorted(unknown))}; only attention, full or "
                             "in a sliding window, is run here")
        return config

    @property
    def vocab_size(self) -> int:
        return int(self.native.vocab_size)

    @property
    def hidden_size(self) -> int:
        return int(self.native.hidden_size)

    @property
    def num_hidden_layers(self) -> int:
        return int(self.native.num_hidden_layers)

    @property
    def max_position_embeddings(self) -> int:
        return int(self.native.max_position_embeddings)

    @property
    def attention_width(self) -> int:
        """Width of all query heads together."""
        heads = int(self.native.num_attention_heads)
        return heads * int(getattr(self.native, "head_dim", None) or self.hidden_size // heads)

    @property
    def window(self) -> int | None:
        """Tokens that a layer with a sliding window sees; None where all layers see everything."""
        native = self.native
        types = getattr(native, "layer_types", None)
        if types is not None and "sliding_attention" not in types:
            return None
        if getattr(native, "use_sliding_window", True) is False:
            return None
        window = getattr(native, "sliding_window", None)
        return int(window) if window else None

    @property
    def mixes_windows(self) -> bool:
        """Whether some layers see everything and others a window."""
        return set(getattr(self.native, "layer_types", None) or ()) == KNOWN_LAYERS

    def to_dict(self) -> dict[str, Any]:
        values = dict(self.native.to_dict())
        values.pop("quantization_config", None)      # of the file that the weights were widened from
        return values


class LayerCache(KeyValueCache):
    """A `KeyValueCache` as the layers of `transformers` write to it; what shape a layer's keys have, the first ones
    tell."""

    keys: list[Tensor | None]      # type: ignore[assignment]
    values: list[Tensor | None]      # type: ignore[assignment]

    def __init__(self, layers: int, batch: int, capacity: int, like: Tensor):
        super().__init__(0, batch, 0, capacity, 0, like)
        self.keys, self.values = [None] * layers, [None] * layers
        self._batch, self._dtype = batch, like.dtype

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """What `transformers` calls `extend`."""
        for stored, new in ((self.keys, key), (self.values, value)):
            if stored[layer_idx] is None:
                stored[layer_idx] = new.new_zeros(self._batch, new.shape[1], len(self._places), new.shape[3],
                                                  dtype=self._dtype)
        keys, values = self.extend(layer_idx, key, value)
        return keys.to(key.dtype), values.to(value.dtype)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0      # positions are always given

    def put(self, rows: Tensor, other: Any, of: Tensor, places: int | None = None) -> None:
        for own, theirs in ((self.keys, other.keys), (self.values, other.values)):
            for layer, read in enumerate(theirs):
                if read is None:
                    continue
                written = own[layer]
                if written is None:
                    written = own[layer] = read.new_zeros(self._batch, read.shape[1], len(self._places), read.shape[3])
                count = places or read.shape[2]
                written[rows, :, :count] = read[of, :, :count]
        self.lengths[rows] = other.lengths[of]


class HuggingFaceDecoder(nn.Module):
    """A network of `transformers` without its head: token ids (B, T) to hidden states (B, T, C)."""

    def __init__(self, config: HuggingFaceConfig, network: Any = None):
        super().__init__()
        self.config = config
        self.network = build_network(config).base_model if network is None else network
        self.prefix = str(self.network.base_model_prefix)
        """What parameters are called by, in the file of a model with a head."""

    @property
    def recompute_activations(self) -> bool:
        """Whether training makes the activations of each block again in the backward pass."""
        return bool(getattr(self.network, "gradient_checkpointing", False))

    @recompute_activations.setter
    def recompute_activations(self, wanted: bool) -> None:
        if wanted and not self.recompute_activations:
            self.network.gradient_checkpointing_enable({"use_reentrant": False})
        elif self.recompute_activations and not wanted:
            self.network.gradient_checkpointing_disable()

    def forward(self, ids: Tensor, position_ids: Tensor, mask: Tensor | None, cache: LayerCache | PromptCache | None,
                only: Tensor | None = None) -> Tensor:
        """Hidden states (B, T, C), or those of token `only[b]` (B,) of row b alone (B, 1, C)."""
        count = ids.shape[1]
        if mask is None:
            mask = cache.mask(count) if isinstance(cache, LayerCache) else causal_mask(count, ids.device)
        states: Tensor = self.network(
            input_ids=ids, position_ids=position_ids.expand(len(ids), -1), attention_mask=self._masks(mask, cache),
            past_key_values=cache, use_cache=False).last_hidden_state
        return states if only is None else states[torch.arange(len(ids), device=ids.device), only][:, None]

    def _masks(self, mask: Tensor, cache: LayerCache | PromptCache | None) -> Any:
        """What the network takes for a mask (B or 1, 1, T, S): one for each kind of layer where there are two."""
        count, keys = mask.shape[-2:]
        windowed = mask
        if (window := self.config.window) is not None:
            places = torch.arange(keys, device=mask.device)
            own = places[keys - count:][None] if cache is None else cache.positions(count)      # (B or 1, T)
            windowed = mask & (places > own[:, None, :, None] - window)
        if self.config.mixes_windows:
            return {"full_attention": self._as_taken(mask), "sliding_attention": self._as_taken(windowed)}
        return self._as_taken(windowed)

    def _as_taken(self, mask: Tensor) -> Tensor:
        """PyTorch's attention takes True and False, the plain one of `transformers` numbers to add to the scores."""
        if self.network.config._attn_implementation == "sdpa":
            return mask
        dtype = next(self.network.parameters()).dtype
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


class HuggingFaceModel(LanguageModel):
    """A causal language model of `transformers`."""

    config: HuggingFaceConfig

    def __init__(self, config: HuggingFaceConfig, network: Any = None):
        super().__init__()
        network = build_network(config) if network is None else network
        self.config = config
        self.model = HuggingFaceDecoder(config, network.base_model)
        self.lm_head = network.get_output_embeddings()
        self._whole = (network,)      # in a tuple, so that its parameters are not found twice

    @property
    def network(self) -> Any:
        """The model as `transformers` has it."""
        return self._whole[0]

    def hidden(self, ids: Tensor, position_ids: Tensor | None = None, mask: Tensor | None = None,
               cache: LayerCache | PromptCache | None = None) -> Tensor:
        length = ids.shape[1]
        if position_ids is None:
            position_ids = torch.arange(length, device=ids.device)[None] if cache is None else cache.positions(length)
        states: Tensor = self.model(ids, position_ids, mask, cache)
        if cache is not None:
            cache.grow(length)
        return states

    def logits(self, states: Tensor) -> Tensor:
        logits: Tensor = self.lm_head(states)
        native = self.config.native
        if scale := getattr(native, "logit_scale", None):      # Cohere
            logits = logits * scale
        if scale := getattr(native, "logits_scaling", None):      # Granite
            logits = logits / scale
        if cap := getattr(native, "final_logit_softcapping", None):      # Gemma 2
            logits = torch.tanh(logits / cap) * cap
        return logits

    @property
    def head_weight(self) -> Tensor | None:
        native = self.config.native
        changed = any(getattr(native, name, None) for name in ("logit_scale", "logits_scaling",
                                                               "final_logit_softcapping"))
        plain = type(self.lm_head) is nn.Linear and self.lm_head.bias is None and not changed
        return self.lm_head.weight if plain else None

    def new_cache(self, batch: int, capacity: int) -> LayerCache:
        return LayerCache(self.config.num_hidden_layers, batch, capacity, like=next(self.model.parameters()))

    def prompt_cache(self) -> PromptCache | None:
        return None if self.model.recompute_activations else PromptCache(next(self.model.parameters()).device)

    @property
    def context_length(self) -> int:
        return self.config.max_position_embeddings

    def training_flops_per_token(self, length: int) -> float:
        shape = self.config
        return flops_per_token(number_of_weights(self), shape.num_hidden_layers, shape.attention_width, length)

    def grow(self, entries: int) -> "HuggingFaceModel":
        """The model with so many entries in its vocabulary, new ones drawn as for a model that is not trained."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            with quiet():
                self.network.resize_token_embeddings(entries, mean_resizing=False)
        return HuggingFaceModel(HuggingFaceConfig(self.network.config.to_dict()), self.network)


def build_network(config: HuggingFaceConfig) -> Any:
    """A network of random weights."""
    from transformers import AutoModelForCausalLM

    with quiet():
        return AutoModelForCausalLM.from_config(config.native, dtype=torch.float32)


def load_huggingface(config: HuggingFaceConfig, directory: Path, device: torch.device, gguf: str = ""
                     ) -> HuggingFaceModel:
    """The model of a directory in float32, or of a GGUF file in it, whose weights are widened. Raises InputError where
    the weights are damaged or do not fit the config; code of a model's own and pickles are never read."""
    from transformers import AutoModelForCausalLM

    file = directory / (gguf or "model.safetensors")
    options: dict[str, Any] = {"gguf_file": gguf} if gguf else {"use_safetensors": True}
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(directory), config=config.native, dtype=torch.float32, local_files_only=True,
                trust_remote_code=False, output_loading_info=True, **options)
            network, told = loaded
    except Exception as error:      # whatever its many loaders raise
        raise InputError(f"{file}: cannot be loaded as {config.native.model_type} "
                         f"({type(error).__name__}: {_first_line(error)})") from None
    if left := sorted(key for key in told["unexpected_keys"] if not _COMPUTED.search(key)):
        raise InputError(f"{file}: the weights do not fit config.json (there is no place for {left[0]}"
                         f"{f' and {len(left) - 1} more' if len(left) > 1 else ''}, so the model would be cut)")
    lacking = sorted({*told["missing_keys"], *(key[0] if isinstance(key, tuple) else key
                                               for key in told["mismatched_keys"])})
    if lacking:
        raise InputError(f"{file}: the weights do not fit config.json ({lacking[0]} is missing or of another size)")
    return HuggingFaceModel(config, network.eval()).to(device).eval()


@contextmanager
def quiet() -> Iterator[None]:
    """`transformers` without its progress bars and warnings: what matters is checked, and said once."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def require_transformers() -> None:
    """Raise InputError where the extra is not installed."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise InputError("a base in a layout other than Qwen3's, or in a GGUF file, needs the extra: "
                         "pip install -c constraints.txt -e '.[transformers]'") from None


def _version() -> str:
    import transformers

    return str(transformers.__version__)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
