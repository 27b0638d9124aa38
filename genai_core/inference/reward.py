"""The directory of a reward model, in the layout of `Qwen3ForSequenceClassification`, and scoring with it."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from genai_core.data.instruction.judgements import Subject
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.export.model_directory import load_config, load_weights, save_config
from genai_core.models.huggingface import HuggingFaceConfig, HuggingFaceDecoder
from genai_core.models.opened import Opened, read_json
from genai_core.models.reward import RewardModel, score_subjects


class OpenedRewardModel(Opened):
    """A reward model and its tokenizer: it scores texts and conversations."""

    produces = "scores"
    model: RewardModel

    def __init__(self, directory: Path, model: RewardModel, tokenizer: Tokenizer, length: int):
        super().__init__(directory, model, next(model.parameters()).device)
        self.tokenizer = tokenizer
        self.length = length
        """Longest text or conversation, in tokens; of a longer one the end is scored."""

    def score(self, subjects: Sequence[Subject], prompts: Sequence[object] | None = None) -> Tensor:
        """Rewards (B,) of texts and conversations, on the CPU; `prompts` (B,) are what they answer, where that is known
        (`score_subjects`)."""
        return score_subjects(self.model, self.tokenizer, subjects, self.length, prompts=prompts)


def save_reward_model(model: RewardModel, tokenizer_dir: Path, length: int, out_dir: Path) -> None:
    """Write the model directory; the tokenizer is copied from `tokenizer_dir`."""
    save_config(model.config, "reward_model", tokenizer_dir, out_dir)
    config = read_json(out_dir / "config.json")
    config |= {"architectures": _architectures(model), "num_labels": 1, "reward_length": length}
    (out_dir / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    weights = {_in_file(name, model): parameter.detach().float().cpu().contiguous()
               for name, parameter in model.named_parameters()}
    save_file(weights, out_dir / "model.safetensors", metadata={"format": "pt"})


def _in_file(name: str, model: RewardModel) -> str:
    """What a parameter is called in the file, where `transformers` looks for it."""
    if isinstance(model.model, HuggingFaceDecoder):
        return name.replace("model.network.", f"{model.model.prefix}.", 1)
    return name


def _architectures(model: RewardModel) -> list[str]:
    if not isinstance(model.config, HuggingFaceConfig):
        return ["Qwen3ForSequenceClassification"]
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    known = KNOWN.get(model.config.native.model_type)
    return [known] if known else []


def open_reward_model(directory: Path, device: torch.device) -> OpenedRewardModel:
    """The reward model of a directory. Raises InputError, naming the file, when it is damaged."""
    model = RewardModel(load_config(directory))
    load_weights(model, directory / "model.safetensors", {_in_file(name, model): name
                                                          for name, _ in model.named_parameters()})
    length = read_json(directory / "config.json")["reward_length"]
    return OpenedRewardModel(directory, model.to(device).eval(), load_tokenizer(directory), length)
