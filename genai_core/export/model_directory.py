"""A model directory as `transformers` reads it: config, weights, tokenizer with chat template, generation defaults."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from genai_core.data.chat import END_OF_TEXT, TURN_END, token_id
from genai_core.data.tokens.tokenizer import TOKENIZER_FILES, load_tokenizer
from genai_core.errors import InputError
from genai_core.models.huggingface import HuggingFaceConfig, HuggingFaceModel, load_huggingface
from genai_core.models.language_model import LanguageModel
from genai_core.models.opened import read_json
from genai_core.models.transformer import Transformer, TransformerConfig

_FIELDS = tuple(TransformerConfig.__dataclass_fields__)
ModelConfig = TransformerConfig | HuggingFaceConfig
"""Sizes of a model: of this project's own transformer, or of a layout that `transformers` runs."""


def save_model(model: LanguageModel, tokenizer_dir: Path, out_dir: Path) -> None:
    """Write the directory of a language model; the tokenizer is copied from `tokenizer_dir`."""
    save_config(model.config, "language_model", tokenizer_dir, out_dir)
    weights = {name: parameter.detach().float().cpu().contiguous() for name, parameter in
               (transformers_names(model) if isinstance(model, HuggingFaceModel) else model.named_parameters())}
    save_file(weights, out_dir / "model.safetensors", metadata={"format": "pt"})


def transformers_names(model: HuggingFaceModel) -> list[tuple[str, torch.Tensor]]:
    """The parameters of a model by the names that `transformers` reads them by, each once."""
    return list(model.network.named_parameters())


def save_config(config: ModelConfig, kind: str, tokenizer_dir: Path, out_dir: Path) -> None:
    """Write everything of a model directory but the weights; `kind` is the one by which it is opened."""
    tokenizer = load_tokenizer(tokenizer_dir)
    ends = {"eos_token_id": token_id(tokenizer, TURN_END), "pad_token_id": token_id(tokenizer, END_OF_TEXT)}
    if isinstance(config, HuggingFaceConfig):
        values = config.to_dict() | {"kind": kind, "dtype": "float32", **ends}
    else:
        sizes = {name: value for name, value in config.to_dict().items() if name != "tie_word_embeddings"}
        values = {
            "kind": kind, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", **sizes,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
            "hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0,
            "tie_word_embeddings": config.tie_word_embeddings,
            "use_sliding_window": False, "dtype": "float32", "bos_token_id": None, **ends}
    _write_json(out_dir / "config.json", values)
    _write_json(out_dir / "generation_config.json", {"do_sample": False, **ends})
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer_dir / name, out_dir / name)


def load_config(directory: Path) -> ModelConfig:
    """The sizes of the model of a directory. Raises InputError, naming the file, where they are not those of one."""
    path = directory / "config.json"
    values = read_json(path)
    if values.get("model_type") != "qwen3":
        if "kind" not in values:      # what others wrote is taken in by the stage adopt, which checks it
            raise InputError(f"{path}: not the config of a language model of this project; `--base` takes in a model "
                             "from outside")
        return HuggingFaceConfig({name: value for name, value in values.items() if name != "kind"})
    missing = [field for field in _FIELDS if field not in values]
    if missing:
        raise InputError(f"{path}: not the config of a language model of this project (no {', '.join(missing)})")
    return TransformerConfig(**{field: values[field] for field in _FIELDS})


def load_model(directory: Path, device: torch.device) -> Transformer | HuggingFaceModel:
    """The language model of a directory, in float32. Raises InputError, naming the file, when it is damaged, and for
    weights in a form that only other programs read."""
    packed = read_json(directory / "config.json").get("quantization_config") or {}
    if packed.get("quant_method") == "compressed-tensors":
        raise InputError(f"{directory}: weights in the form compressed-tensors, which transformers and, on a GPU, vLLM "
                         "read; export the model as huggingface or gguf")
    config = load_config(directory)
    if isinstance(config, HuggingFaceConfig):
        return load_huggingface(config, directory, device)
    model = Transformer(config)
    load_weights(model, directory / "model.safetensors")
    return model.to(device).eval()


def load_weights(model: nn.Module, path: Path, names: Mapping[str, str] = MappingProxyType({})) -> None:
    """Load the weights of a file into a model; `names` are those of the file to those of the model, where they differ.
    """
    try:
        weights = {names.get(name, name): tensor for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); fetch or train the model again") from None
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        differing = _differences(model.state_dict(), weights) or [str(error).splitlines()[0]]
        others = f", and {len(differing) - 1:,} others" if len(differing) > 1 else ""
        raise InputError(f"{path}: the weights do not fit config.json ({differing[0]}{others})") from None


def _differences(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> list[str]:
    """What is wrong with the weights of a file, one by one."""
    missing = [f"no {name}" for name in expected if name not in found]
    unknown = [f"an unknown {name}" for name in found if name not in expected]
    other_shapes = [f"{name} has the shape {tuple(found[name].shape)} in place of {tuple(tensor.shape)}"
                    for name, tensor in expected.items() if name in found and found[name].shape != tensor.shape]
    return [*missing, *unknown, *other_shapes]


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
