"""A language model as a GGUF file, which llama.cpp and what is built on it read: weights, tokenizer and chat template.

Written and read by the package `gguf` of llama.cpp's authors, in the layout that llama.cpp knows as `qwen3`.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from genai_core.config.release import BLOCK
from genai_core.errors import InputError
from genai_core.export.gguf_tokenizer import add_tokenizer
from genai_core.models.transformer import Transformer, TransformerConfig

if TYPE_CHECKING:
    from gguf import GGUFReader, GGUFWriter

Format = Literal["F32", "F16", "Q8_0", "Q4_0", "IQ4_NL"]

FILE = "model.gguf"
"""Its name in a model directory."""
ARCHITECTURE = "qwen3"
FOUR_BITS = ("Q4_0", "IQ4_NL")
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
NAMES = {EMBEDDING: "token_embd.weight", "model.norm.weight": "output_norm.weight", HEAD: "output.weight"}
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def write_gguf(model: Transformer, tokenizer_dir: Path, path: Path, form: Format, name: str = "genai-core",
               packed: Mapping[str, np.ndarray] | None = None) -> None:
    """Write a model in one of the formats, whole or not at all. Of the four-bit ones the embedding, which is the head
    too, has eight bits; norms are in float32 in all.

    `packed` are the bytes of weights that are rounded already, by the name of the parameter; IQ4_NL needs those of
    every layer. Raises InputError for widths that a quantized format cannot cut into blocks of 32.
    """
    from gguf import GGUFWriter

    shape = model.config
    narrow = [width for width in (shape.hidden_size, shape.intermediate_size,
                                  shape.num_attention_heads * shape.head_dim) if width % BLOCK]
    if narrow and form not in ("F32", "F16"):
        raise InputError(f"{form} cuts rows into blocks of {BLOCK} weights, and a layer of this model is {narrow[0]} "
                         "wide; take F16")
    scratch = path.with_name(f"{path.name}.part")
    writer = GGUFWriter(scratch, ARCHITECTURE)
    writer.add_name(name)
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    add_tokenizer(writer, tokenizer_dir, shape.vocab_size)
    _add_weights(writer, model, form, packed or {})
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    scratch.replace(path)


def read_gguf(path: Path) -> Transformer:
    """The model of a GGUF file in the layout of `write_gguf`, its weights in float32.

    Raises InputError, naming the file, when it is no GGUF, damaged, or in the layout of another architecture.
    """
    from gguf import GGUFReader, quants

    if not path.is_file():
        raise InputError(f"{path} is missing: not a model directory")
    try:
        reader = GGUFReader(path)
        shape = _shape(reader, path)
        model = Transformer(shape)
        stored = {tensor.name: tensor for tensor in reader.tensors}
        wanted = dict(model.named_parameters())
        if foreign := set(stored) ^ {_name(name) for name in wanted}:
            raise InputError(f"{path}: not in the layout of a model of this project ({min(foreign)})")
        for name, parameter in wanted.items():
            tensor = stored[_name(name)]
            values = torch.from_numpy(quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
            parameter.data.copy_(values.view(parameter.shape))
    except InputError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, NotImplementedError, RuntimeError, OSError,
            struct.error) as error:
        raise InputError(f"{path}: not a readable GGUF file ({error})") from None
    return model.eval()


def _shape(reader: "GGUFReader", path: Path) -> TransformerConfig:
    def value(key: str) -> int | float | str:
        field = reader.get_field(key)
        if field is None:
            raise InputError(f"{path}: not in the layout of a model of this project (no {key})")
        found: int | float | str = field.contents()
        return found

    if (architecture := value("general.architecture")) != ARCHITECTURE:
        raise InputError(f"{path}: a model of the architecture {architecture}; this project reads {ARCHITECTURE}")
    of = {field: int(value(f"{ARCHITECTURE}.{key}")) for field, key in {
        "hidden_size": "embedding_length", "num_hidden_layers": "block_count", "num_attention_heads":
        "attention.head_count", "num_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length",
        "intermediate_size": "feed_forward_length", "max_position_embeddings": "context_length"}.items()}
    embedding = [tensor for tensor in reader.tensors if tensor.name == NAMES[EMBEDDING]]
    if not embedding:
        raise InputError(f"{path}: not in the layout of a model of this project (no {NAMES[EMBEDDING]})")
    return TransformerConfig(vocab_size=int(embedding[0].shape[1]), **of,
                             rope_theta=float(value(f"{ARCHITECTURE}.rope.freq_base")),
                             rms_norm_eps=float(value(f"{ARCHITECTURE}.attention.layer_norm_rms_epsilon")),
                             tie_word_embeddings=all(tensor.name != NAMES[HEAD] for tensor in reader.tensors))


def tensor_bytes(path: Path) -> dict[str, int]:
    """Bytes of each tensor of a GGUF file, by llama.cpp's name."""
    from gguf import GGUFReader

    return {tensor.name: int(tensor.n_bytes) for tensor in GGUFReader(path).tensors}


def _add_weights(writer: "GGUFWriter", model: Transformer, form: Format, packed: Mapping[str, np.ndarray]) -> None:
    from gguf import GGMLQuantizationType, LlamaFileType, quants

    file_types = {"F32": LlamaFileType.ALL_F32, "F16": LlamaFileType.MOSTLY_F16, "Q8_0": LlamaFileType.MOSTLY_Q8_0,
                  "Q4_0": LlamaFileType.MOSTLY_Q4_0, "IQ4_NL": LlamaFileType.MOSTLY_IQ4_NL}
    writer.add_file_type(file_types[form])
    for name, parameter in model.named_parameters():
        kind = "F32" if parameter.dim() == 1 else "Q8_0" if name in (EMBEDDING, HEAD) and form in FOUR_BITS else form
        qtype = GGMLQuantizationType[kind]
        values = packed.get(name)
        if values is None:
            values = quants.quantize(np.ascontiguousarray(parameter.detach().float().cpu().numpy()), qtype)
        writer.add_tensor(_name(name), values, raw_dtype=qtype)


def _name(name: str) -> str:
    """What llama.cpp calls a parameter."""
    if name in NAMES:
        return NAMES[name]
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[part]}.weight"
