"""Adapters in the format of `peft`, which puts them on the model that they were trained on."""

import json
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file
from torch import nn

from genai_core.models.adapters import HEAD, adapters_of, is_transposed, last, linear_layers
from genai_core.models.four_bit import FourBitLinear

FOLDER = "adapter"
"""Where a model directory has the adapter that was merged into it."""
README = "README.md"
"""Says which weights the adapter belongs to, where they are not those of the model that the stage began with."""
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

OPENED_BY = {"CAUSAL_LM": "AutoModelForCausalLM", "SEQ_CLS": "AutoModelForSequenceClassification"}
FOUR_BITS = """# A LoRA adapter on a base in four bits

The layers below it were held as NF4 in blocks of 64 with scales in float32, without double quantization, and the
adapter was learned on those rounded weights. The merged model in the directory above has them. On the base that the
training began with, the adapter gives the same as there once that is loaded in the same form:

    import torch
    from peft import PeftModel
    from transformers import OPENED_BY, BitsAndBytesConfig
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32,
                                   llm_int8_skip_modules=LEFT_OUT)
    base = OPENED_BY.from_pretrained(BASE, quantization_config=four_bits, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, ADAPTER)

On the base as it is, without rounding, the adapter loads too and gives a slightly different model.
"""


def save_adapter(model: nn.Module, out_dir: Path, whole: tuple[str, ...] = (),
                 task: Literal["CAUSAL_LM", "SEQ_CLS"] = "CAUSAL_LM") -> None:
    """Write the adapters of a model, and its parts named `whole` that were trained beside them, to a directory.

    The base is not named there: where it lies differs from machine to machine, and who loads an adapter has it. A
    README says where it is to be loaded in four bits.
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
    if isinstance(some.base_layer, FourBitLinear):
        left_out = json.dumps([HEAD, *(_in_its_file(model, name) for name in linear_layers(model))])
        text = FOUR_BITS.replace("OPENED_BY", OPENED_BY[task]).replace("LEFT_OUT", left_out)
        (out_dir / README).write_text(text, encoding="utf-8")
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
