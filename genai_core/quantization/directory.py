"""A quantized model directory: the full-precision one with `quantization.json` and packed weights instead."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genai_core.errors import InputError
from genai_core.export.model_directory import load_config, save_config
from genai_core.models.opened import read_json
from genai_core.models.transformer import Transformer
from genai_core.quantization.compensation import second_moments
from genai_core.quantization.weights import (
    Bits,
    QuantizedEmbedding,
    QuantizedLinear,
    quantize_int4,
    quantize_int8,
)

_EMBEDDING = "model.embed_tokens"


def quantize_to_directory(model: Transformer, bits: Bits, group_size: int, tokenizer_dir: Path, out_dir: Path,
                          calibration: Sequence[dict[str, Tensor]] = ()) -> None:
    """Write the model with linear weights in `bits`; embedding and head in int8, norms in float32.

    `calibration` are batches of packed rows, on which weights in four bits keep what the layers make of their inputs.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    moments = second_moments(model, calibration) if bits == 4 and calibration else {}
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        module = name.removesuffix(".weight")
        weight = parameter.detach().float().cpu()
        if weight.dim() != 2:
            tensors[name] = weight.contiguous()
        elif bits == 8 or module == _EMBEDDING:
            tensors[f"{module}.weight_int8"], tensors[f"{module}.weight_scale"] = quantize_int8(weight)
        else:
            packed, scale, minimum = quantize_int4(weight, group_size, moments.get(module))
            tensors |= {f"{module}.weight_int4": packed, f"{module}.weight_scale": scale,
                        f"{module}.weight_minimum": minimum}
    save_config(model.config, "quantized_language_model", tokenizer_dir, out_dir)
    save_file(tensors, out_dir / "model.safetensors", metadata={"format": "pt"})
    description = {"bits": bits, "group_size": group_size if bits == 4 else None, "embedding_bits": 8}
    (out_dir / "quantization.json").write_text(json.dumps(description) + "\n", encoding="utf-8")


def load_quantized(directory: Path, device: torch.device) -> Transformer:
    """The quantized model of a directory. Raises InputError, naming the file, when it is damaged."""
    read_json(directory / "quantization.json")
    path = directory / "model.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None
    model = Transformer(load_config(directory))
    try:
        _put(model, tensors)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{path}: the weights do not fit config.json ({error})") from None
    return model.to(device).eval()


def _put(model: Transformer, tensors: dict[str, Tensor]) -> None:
    for name, module in list(model.named_modules()):
        stored = {key.rsplit(".", 1)[1]: value for key, value in tensors.items() if key.rsplit(".", 1)[0] == name}
        if isinstance(module, nn.Linear):
            _replace(model, name, QuantizedLinear(stored))
        elif name == _EMBEDDING:
            _replace(model, name, QuantizedEmbedding(stored["weight_int8"], stored["weight_scale"]))
        elif "weight" in stored:
            module.weight.data.copy_(stored["weight"])


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
