"""A language model in eight bits in the layout of `compressed-tensors`, which `transformers` and vLLM load.

Format `pack-quantized`: in each row 32 weights share a scale, w = q · scale, and four q are packed into an int32. The
values are those of Q8_0 of GGUF: a model that came from there keeps them.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from genai_core.config.release import BLOCK
from genai_core.errors import InputError
from genai_core.export.gguf import EMBEDDING, HEAD
from genai_core.export.model_directory import save_config
from genai_core.models.transformer import Transformer

BITS = 8


def save_compressed(model: Transformer, tokenizer_dir: Path, out: Path) -> None:
    """Write the directory; embedding and norms stay in float32. Raises InputError for widths that 32 does not divide.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        weight = parameter.detach().float().cpu().contiguous()
        if weight.dim() == 1 or name in (EMBEDDING, HEAD):
            tensors[name] = weight
            continue
        if weight.shape[1] % BLOCK:
            raise InputError(f"{name} has {weight.shape[1]} inputs, no multiple of {BLOCK}, the number that share a "
                             "scale; export another form")
        values, scale = rounded(weight)
        tensors |= {f"{name}_packed": packed(values), f"{name}_scale": scale,
                    f"{name}_shape": torch.tensor(weight.shape)}
    save_config(model.config, "language_model", tokenizer_dir, out)
    path = out / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"] = {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head"], "config_groups": {"group_0": {
            "targets": ["Linear"], "input_activations": None, "output_activations": None, "weights": {
                "num_bits": BITS, "type": "int", "symmetric": True, "strategy": "group", "group_size": BLOCK,
                "dynamic": False}}}}
    path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Values (N, K) from −127 to 127 and scales (N, K / 32) of sixteen bits: scale = max|w| / 127 of each group."""
    groups = weight.view(len(weight), -1, BLOCK)
    scale = groups.abs().amax(2) / 127
    values = torch.round(groups / scale.clamp(min=1e-12)[..., None])
    return values.to(torch.int8).view(weight.shape), scale.half().float()


def packed(values: Tensor) -> Tensor:
    """Eight-bit values (N, K), 128 added to each, as int32 (N, K / 4), the first in the lowest bits."""
    return (values.to(torch.int16) + 128).to(torch.uint8).contiguous().view(torch.int32)
