"""Adapters in the format of `peft`, which puts them on the model that they were trained on."""

import json
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file
from torch import nn

from genai_core.models.adapters import adapters_of, is_transposed, last, linear_layers

FOLDER = "adapter"
"""Where a model directory has the adapter that was merged into it."""
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


def save_adapter(model: nn.Module, out_dir: Path, whole: tuple[str, ...] = (),
                 task: Literal["CAUSAL_LM", "SEQ_CLS"] = "CAUSAL_LM") -> None:
    """Write the adapters of a model, and its parts named `whole` that were trained beside them, to a directory.

    The base is not named there: where it lies differs from machine to machine, and who loads an adapter has it.
    """
    adapters = {_in_its_file(model, name): adapter for name, adapter in adapters_of(model)}
    some = next(iter(adapters.values()))
    weights = {f"{name}.{part}": getattr(adapter, part)
               for name, adapter in adapters.items() for part in ("lora_A", "lora_B")}
    weights |= {name: part.weight for name, part in model.named_modules() if last(name) in whole}
    names = set(map(last, adapters))
    shared = any(last(name) in names for name in linear_layers(model))      # with a layer that has no adapter
    config = {
        "peft_type": "LORA", "task_type": task, "base_model_name_or_path": None, "inference_mode": True,
        "r": some.rank, "lora_alpha": some.alpha, "lora_dropout": 0.0, "bias": "none", "use_rslora": False,
        "target_modules": sorted(adapters if shared else names), "fan_in_fan_out": is_transposed(some.base_layer),
        "modules_to_save": list(whole) or None}
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file({f"base_model.model.{name}.weight": weight.detach().float().cpu().contiguous()
               for name, weight in weights.items()}, out_dir / WEIGHTS_FILE, metadata={"format": "pt"})


def _in_its_file(model: nn.Module, name: str) -> str:
    """What a part of a model is called in the file of its weights: one that wraps a network of `transformers` keeps it
    as `network`, and says by `prefix` what the file has in its place."""
    for wrapper, part in model.named_modules():
        prefix = getattr(part, "prefix", None)
        if isinstance(prefix, str) and isinstance(getattr(part, "network", None), nn.Module):
            name = name.replace(f"{wrapper}.network.", f"{prefix}.", 1)
    return name
