"""A model that `transformers` runs as a GGUF file, and back.

llama.cpp reads those of LAYOUTS: its names for the tensors are those of the package `gguf`, and what it expects of
their values stands in its `convert_hf_to_gguf.py`. Any other layout is written with its own names, for this project's
engine alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genai_core.config.release import BLOCK
from genai_core.errors import InputError
from genai_core.export.gguf import EMBEDDING, FOUR_BITS, NAMES, Format, write_gguf
from genai_core.export.gguf_tokenizer import NotForLlamaCpp, add_tokenizer, require_tokenizer
from genai_core.models.huggingface import HuggingFaceConfig, HuggingFaceModel
from genai_core.models.transformer import Transformer, TransformerConfig

if TYPE_CHECKING:
    from gguf import GGUFWriter

Change = Callable[[str, Tensor, Any], Tensor]


def _unchanged(name: str, weight: Tensor, native: Any) -> Tensor:
    return weight


def _paired(name: str, weight: Tensor, native: Any) -> Tensor:
    """llama.cpp turns neighbours (x_2i, x_2i+1) by an angle, `transformers` the two halves of a head."""
    if not name.endswith(("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")):
        return weight
    heads = native.num_attention_heads if "q_proj" in name else native.num_key_value_heads
    return weight.view(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def _halved(name: str, weight: Tensor, native: Any) -> Tensor:
    if not name.endswith(("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")):
        return weight
    heads = native.num_attention_heads if "q_proj" in name else native.num_key_value_heads
    return weight.view(heads, -1, 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def _whole_norms(name: str, weight: Tensor, native: Any) -> Tensor:
    """Gemma's norms multiply by 1 + w, llama.cpp's by what is stored."""
    return weight + 1 if name.endswith("norm.weight") else weight


def _offset_norms(name: str, weight: Tensor, native: Any) -> Tensor:
    return weight - 1 if name.endswith("norm.weight") else weight


def _outputs_first(name: str, weight: Tensor, native: Any) -> Tensor:
    """GPT-2's layers have their weights as (inputs, outputs)."""
    return weight.T.contiguous() if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else weight


@dataclass(frozen=True)
class Layout:
    """What llama.cpp calls a layout, and how its weights differ there."""

    architecture: str
    there: Change = _unchanged
    back: Change = _unchanged


LAYOUTS = {"llama": Layout("llama", _paired, _halved), "mistral": Layout("llama", _paired, _halved),
           "qwen2": Layout("qwen2"), "qwen3": Layout("qwen3"),
           "gemma3_text": Layout("gemma3", _whole_norms, _offset_norms),
           "gpt2": Layout("gpt2", _outputs_first, _outputs_first)}


def layout_of(config: HuggingFaceConfig) -> Layout | None:
    """How llama.cpp knows a layout; None where it does not, or knows it otherwise."""
    native = config.native
    kinds = {rope.get("rope_type", "default") for rope in _ropes(native)}
    plain = kinds <= {"default"} and not getattr(native, "attention_bias", False)
    if native.model_type == "gemma3_text":      # llama.cpp knows one pattern, one scale and one base of windowed layers
        types = ["full_attention" if number % 6 == 5 else "sliding_attention"
                 for number in range(native.num_hidden_layers)]
        local = native.rope_parameters["sliding_attention"]["rope_theta"]
        plain &= native.layer_types == types and native.query_pre_attn_scalar == native.head_dim and local == 10_000
    return LAYOUTS.get(native.model_type) if plain else None


def names_of(model: HuggingFaceModel) -> dict[str, str]:
    """The parameters of the network by the names that they have in the file, each once."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    native, layout = model.config.native, layout_of(model.config)
    embedding = model.network.get_input_embeddings().weight
    named = dict(model.network.named_parameters())
    if layout is None:
        return {name: NAMES[EMBEDDING] if parameter is embedding else name for name, parameter in named.items()}
    number = next(MODEL_ARCH(each) for each, name in MODEL_ARCH_NAMES.items() if name == layout.architecture)
    known = get_tensor_name_map(number, native.num_hidden_layers)
    found = {name: known.get_name(name, try_suffixes=(".weight", ".bias")) for name in named}
    if missing := [name for name, other in found.items() if other is None]:
        raise InputError(f"llama.cpp has no name for {missing[0]} of the layout {native.model_type}")
    return {name: str(other) for name, other in found.items()}


def write_layout(model: HuggingFaceModel, tokenizer_dir: Path, path: Path, form: Format, name: str = "genai-core",
                 packed: Mapping[str, np.ndarray] | None = None) -> None:
    """Write a model in one of the formats, whole or not at all. Of the four-bit ones the embedding and the head have
    eight bits; vectors, and rows that no blocks of 32 fill, are in 32 and 16 bits in all.

    `packed` are the bytes of weights that are rounded already, by the name of the parameter.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    scratch = path.with_name(f"{path.name}.part")
    layout = layout_of(model.config)
    writer = GGUFWriter(scratch, layout.architecture if layout else f"transformers-{model.config.native.model_type}")
    writer.add_name(name)
    _add_sizes(writer, model.config)
    add_tokenizer(writer, tokenizer_dir, model.config.vocab_size)
    for parameter, other in names_of(model).items():
        qtype = GGMLQuantizationType[kind_in_file(model, parameter, form)]
        values = (packed or {}).get(parameter)
        if values is None:
            values = quants.quantize(np.ascontiguousarray(in_file(model, parameter).numpy()), qtype)
        writer.add_tensor(other, values, raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    scratch.replace(path)


def write_any_gguf(model: Transformer | HuggingFaceModel, tokenizer_dir: Path, path: Path, form: Format,
                   name: str = "genai-core") -> None:
    """Write a language model of either kind. Raises NotForLlamaCpp."""
    require_llama_cpp(model.config, tokenizer_dir)
    if isinstance(model, Transformer):
        write_gguf(model, tokenizer_dir, path, form, name)
    else:
        write_layout(model, tokenizer_dir, path, form, name)


def require_llama_cpp(config: TransformerConfig | HuggingFaceConfig, tokenizer_dir: Path) -> None:
    """Raise NotForLlamaCpp for a layout or a tokenizer that llama.cpp does not read."""
    if isinstance(config, HuggingFaceConfig) and layout_of(config) is None:
        raise NotForLlamaCpp(f"llama.cpp does not read the layout {config.native.model_type} as it is configured here; "
                             f"of others it reads {', '.join(LAYOUTS)}; export huggingface, which transformers reads")
    require_tokenizer(tokenizer_dir)


def in_file(model: HuggingFaceModel, parameter: str) -> Tensor:
    """The values of a parameter as the file has them, in float32."""
    layout = layout_of(model.config)
    weight = model.network.get_parameter(parameter).detach().float().cpu()
    return layout.there(parameter, weight, model.config.native) if layout else weight


def kind_in_file(model: HuggingFaceModel, parameter: str, form: Format) -> str:
    """The type of a parameter in a file of a format."""
    weight, layout = model.network.get_parameter(parameter), layout_of(model.config)
    shape = layout.there(parameter, weight.detach().to("meta"), model.config.native).shape if layout else weight.shape
    if weight.dim() != 2 or parameter.endswith(("wpe.weight", "norm.weight")):
        return "F32"
    if form in ("F32", "F16"):
        return form
    if shape[1] % BLOCK:
        return "F16"
    whole = (model.network.get_input_embeddings(), model.network.get_output_embeddings())
    at_the_ends = any(weight is each.weight for each in whole)
    return "Q8_0" if at_the_ends and form in FOUR_BITS else form


def read_layout(path: Path, config: HuggingFaceConfig) -> HuggingFaceModel:
    """The model of such a file, its weights in float32. Raises InputError, naming the file, when it is damaged."""
    from gguf import GGUFReader, quants

    if not path.is_file():
        raise InputError(f"{path} is missing: not a model directory")
    model, layout = HuggingFaceModel(config), layout_of(config)
    try:
        stored = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
        for name, other in names_of(model).items():
            parameter, tensor = model.network.get_parameter(name), stored[other]
            values = torch.from_numpy(quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
            values = layout.back(name, values, config.native) if layout else values
            parameter.data.copy_(values.view(parameter.shape))
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, NotImplementedError, RuntimeError,
            OSError) as error:
        raise InputError(f"{path}: not a readable GGUF file of this model ({error})") from None
    return model.eval()


def _ropes(native: Any) -> list[dict[str, Any]]:
    """The rotary embeddings of a config, one for each kind of layer where they differ."""
    found = getattr(native, "rope_parameters", None) or {}
    return [each for each in found.values() if isinstance(each, dict)] or [found]


def _add_sizes(writer: "GGUFWriter", config: HuggingFaceConfig) -> None:
    native = config.native
    heads = int(native.num_attention_heads)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(int(getattr(native, "intermediate_size", None) or getattr(native, "n_inner", None)
                                       or 4 * config.hidden_size))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(getattr(native, "num_key_value_heads", None) or heads))
    writer.add_key_length(config.attention_width // heads)
    writer.add_value_length(config.attention_width // heads)
    writer.add_vocab_size(config.vocab_size)
    if (epsilon := getattr(native, "rms_norm_eps", None)) is not None:
        writer.add_layer_norm_rms_eps(float(epsilon))
    else:
        writer.add_layer_norm_eps(float(getattr(native, "layer_norm_epsilon", 1e-5)))
    ropes = getattr(native, "rope_parameters", None) or {}
    rope = ropes.get("full_attention", ropes)
    if "rope_theta" in rope:
        writer.add_rope_freq_base(float(rope["rope_theta"]))
        writer.add_rope_dimension_count(config.attention_width // heads)
    if config.window:
        writer.add_sliding_window(config.window)
