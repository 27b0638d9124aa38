"""A model directory of a family that `transformers` has no class for: `config.json` and `model.safetensors`."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from genai_core.data.tokens.tokenizer import TOKENIZER_FILES
from genai_core.errors import InputError
from genai_core.export.model_directory import load_weights
from genai_core.models.opened import read_json


def save_family_model(model: nn.Module, kind: str, shape: Any, out_dir: Path,
                      tokenizer_dir: Path | None = None, **more: Any) -> None:
    """Write the directory of a model of kind `kind`.

    `shape` is the dataclass that the model is built from, `more` what generation needs beside it; the tokenizer's files
    are copied from `tokenizer_dir`, where the model has one.
    """
    config = {"kind": kind, **asdict(shape), **more}
    (out_dir / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    saved: set[int] = set()
    weights = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in saved:      # two names of one tensor: the first is enough
            saved.add(tensor.data_ptr())
            weights[name] = tensor.detach().cpu().contiguous()
    save_file(weights, out_dir / "model.safetensors", metadata={"format": "pt"})
    for name in TOKENIZER_FILES if tokenizer_dir else ():
        shutil.copyfile(Path(str(tokenizer_dir)) / name, out_dir / name)


def read_shape(directory: Path, shape: Any) -> Any:
    """The dataclass that the model of a directory was built from, of class `shape`. Raises InputError when the config
    lacks one of its fields."""
    values = read_json(directory / "config.json")
    fields = shape.__dataclass_fields__
    missing = [name for name in fields if name not in values]
    if missing:
        raise InputError(f"{directory / 'config.json'}: no {', '.join(missing)}; not a model of this kind")
    return shape(**{name: tuple(value) if isinstance(value, list) else value
                    for name, value in values.items() if name in fields})


def load_into(model: nn.Module, directory: Path, device: torch.device) -> nn.Module:
    """`model` with the weights of a directory, on `device` and in evaluation mode.

    Raises InputError, naming the file, when it is damaged.
    """
    load_weights(model, directory / "model.safetensors")
    return model.to(device).eval()
