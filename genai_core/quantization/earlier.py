"""Quantized directories in the layout of before GGUF, of which releases may still be in service: read, never written.

`model.safetensors` holds `weight_int8` with a scale for each row, or `weight_int4`, two to a byte with the even columns
in the low four bits, with a scale and a minimum for each group of inputs.
"""

from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from genai_core.errors import InputError
from genai_core.export.model_directory import load_config
from genai_core.models.transformer import Transformer, TransformerConfig


def load_earlier(directory: Path) -> Transformer:
    """The model of such a directory in float32. Raises InputError, naming the file, when it is damaged."""
    path = directory / "model.safetensors"
    model = Transformer(cast(TransformerConfig, load_config(directory)))      # before there were others
    try:
        stored = load_file(path)
        model.load_state_dict({f"{name}.weight": _weight(stored, name)
                               for name in dict.fromkeys(key.rpartition(".")[0] for key in stored)})
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{path}: the weights do not fit config.json ({error})") from None
    return model


def _weight(stored: dict[str, Tensor], name: str) -> Tensor:
    if f"{name}.weight" in stored:
        return stored[f"{name}.weight"]
    scale = stored[f"{name}.weight_scale"].float()
    if f"{name}.weight_int8" in stored:
        return stored[f"{name}.weight_int8"].float() * scale[:, None]
    packed, minimum = stored[f"{name}.weight_int4"], stored[f"{name}.weight_minimum"].float()
    values = torch.stack([packed & 15, packed >> 4], dim=2).view(len(packed), scale.shape[1], -1).float()
    return (values * scale[:, :, None] + minimum[:, :, None]).view(len(packed), -1)
