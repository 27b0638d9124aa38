"""A quantized model directory: config and tokenizer as of any model, and the weights as `model.gguf`.

llama.cpp and what is built on it run the file as it is, `transformers` reads it with `gguf_file="model.gguf"`, and here
its weights are widened to float32: what a format changes in a model is its weights, and that is measured with them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from genai_core.export.gguf import EMBEDDING, FILE, FOUR_BITS, HEAD, Format, read_gguf, write_gguf
from genai_core.export.gguf_layouts import in_file, kind_in_file, names_of, read_layout, write_layout
from genai_core.export.model_directory import load_config, save_config
from genai_core.models.huggingface import HuggingFaceConfig, HuggingFaceModel
from genai_core.models.transformer import Transformer
from genai_core.quantization.blocks import FourBits, quantize_4_bits
from genai_core.quantization.compensation import second_moments
from genai_core.quantization.earlier import load_earlier

KIND = "quantized_language_model"


def quantize_to_directory(model: Transformer | HuggingFaceModel, form: Format, tokenizer_dir: Path, out_dir: Path,
                          calibration: Sequence[dict[str, Tensor]] = ()) -> None:
    """Write the directory of a model with its weights in a format of GGUF.

    `calibration` are batches of packed rows, on which weights in four bits keep what the layers make of their inputs.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    if isinstance(model, HuggingFaceModel):
        _quantize_layout(model, form, tokenizer_dir, out_dir, calibration)
        return
    packed = {}
    if form in FOUR_BITS:
        moments = second_moments(model, calibration) if calibration else {}
        packed = {name: quantize_4_bits(parameter.detach().float().cpu(), cast(FourBits, form),
                                        moments.get(name.removesuffix(".weight")))
                  for name, parameter in model.named_parameters()
                  if parameter.dim() == 2 and name not in (EMBEDDING, HEAD)}
    save_config(model.config, KIND, tokenizer_dir, out_dir)
    (out_dir / "quantization.json").write_text(json.dumps({"format": form}) + "\n", encoding="utf-8")
    write_gguf(model, tokenizer_dir, out_dir / FILE, form, packed=packed)


def _quantize_layout(model: HuggingFaceModel, form: Format, tokenizer_dir: Path, out_dir: Path,
                     calibration: Sequence[dict[str, Tensor]]) -> None:
    """The same for a layout that `transformers` runs: each weight is rounded as it stands in the file."""
    packed = {}
    if form in FOUR_BITS:
        moments = {name.replace("model.network", model.model.prefix, 1): moment for name, moment in
                   (second_moments(model, calibration) if calibration else {}).items()}
        packed = {name: quantize_4_bits(in_file(model, name).contiguous(), cast(FourBits, form),
                                        moments.get(name.removesuffix(".weight")))
                  for name in names_of(model) if kind_in_file(model, name, form) == form}
    save_config(model.config, KIND, tokenizer_dir, out_dir)
    (out_dir / "quantization.json").write_text(json.dumps({"format": form}) + "\n", encoding="utf-8")
    write_layout(model, tokenizer_dir, out_dir / FILE, form, packed=packed)


def load_quantized(directory: Path, device: torch.device) -> Transformer | HuggingFaceModel:
    """The model of a quantized directory, its weights in float32. Raises InputError, naming the file, when it is
    damaged."""
    config = load_config(directory)
    if isinstance(config, HuggingFaceConfig):
        return read_layout(directory / FILE, config).to(device).eval()
    if not (directory / FILE).exists() and (directory / "model.safetensors").is_file():
        return load_earlier(directory).to(device).eval()
    return read_gguf(directory / FILE).to(device).eval()
