"""A model directory as `transformers` reads it: config, weights, tokenizer with chat template, generation defaults."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from genai_core.data.chat import END_OF_TEXT, TURN_END, token_id
from genai_core.data.tokens.tokenizer import TOKENIZER_FILES, load_tokenizer
from genai_core.errors import InputError
from genai_core.models.language_model import LanguageModel
from genai_core.models.opened import read_json
from genai_core.models.transformer import Transformer, TransformerConfig

_FIELDS = tuple(TransformerConfig.__dataclass_fields__)


def save_model(model: LanguageModel, tokenizer_dir: Path, out_dir: Path) -> None:
    """Write the directory of a language model; the tokenizer is copied from `tokenizer_dir`."""
    save_config(model.config, "language_model", tokenizer_dir, out_dir)
    weights = {name: parameter.detach().float().cpu().contiguous() for name, parameter in model.named_parameters()}
    save_file(weights, out_dir / "model.safetensors", metadata={"format": "pt"})


def save_config(config: TransformerConfig, kind: str, tokenizer_dir: Path, out_dir: Path) -> None:
    """Write everything of a model directory but the weights; `kind` is the one by which it is opened."""
    tokenizer = load_tokenizer(tokenizer_dir)
    ends = {"eos_token_id": token_id(tokenizer, TURN_END), "pad_token_id": token_id(tokenizer, END_OF_TEXT)}
    _write_json(out_dir / "config.json", {
        "kind": kind, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", **config.to_dict(),
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": True,
        "use_sliding_window": False, "dtype": "float32", "bos_token_id": None, **ends})
    _write_json(out_dir / "generation_config.json", {"do_sample": False, **ends})
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer_dir / name, out_dir / name)


def load_config(directory: Path) -> TransformerConfig:
    values = read_json(directory / "config.json")
    missing = [field for field in _FIELDS if field not in values]
    if values.get("model_type") != "qwen3" or missing:
        raise InputError(f"{directory / 'config.json'}: not the config of a language model of this project"
                         + (f" (no {', '.join(missing)})" if missing else ""))
    return TransformerConfig(**{field: values[field] for field in _FIELDS})


def load_model(directory: Path, device: torch.device) -> Transformer:
    """The language model of a directory, in float32. Raises InputError, naming the file, when it is damaged."""
    model = Transformer(load_config(directory))
    load_weights(model, directory / "model.safetensors")
    return model.to(device).eval()


def load_weights(model: nn.Module, path: Path) -> None:
    try:
        weights = load_file(path)
        model.load_state_dict(weights)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); fetch or train the model again") from None
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: the weights do not fit config.json ({reason})") from None


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
