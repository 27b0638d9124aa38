"""Next-token prediction on token files."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.config.training import LanguageModelConfig
from genai_core.data.batches import Windows
from genai_core.data.token_files import read_tokens, validation_names
from genai_core.data.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.evaluation.bits_per_byte import held_out_loss, token_byte_lengths
from genai_core.hardware import choose_precision
from genai_core.models.language_model import LanguageModel
from genai_core.training.objectives.objective import Batch, Objective, evenly_spaced


class NextToken(Objective):
    """Cross-entropy in nats of each token given those before it in its window.

    Raises InputError when the training tokens are too few for windows of the context length.
    """

    unit = "tokens"
    fixed_shapes = True

    def __init__(self, model: LanguageModel, tokens_dir: Path, config: LanguageModelConfig, device: torch.device):
        self.model = model
        self.config = config
        self.device = device
        file = read_tokens(tokens_dir, "train")
        if len(file.ids) < 3 * config.context_length:
            raise InputError(f"pretrain.context_length: {len(file.ids):,} training tokens are too few for windows of "
                             f"{config.context_length}; add text or shorten the context")
        self.windows = Windows(file, config.context_length, config.batch_size, config.seed, device)
        self.steps = max(1, config.tokens // (config.batch_size * config.context_length))
        tokens = self.steps * config.batch_size * config.context_length
        self.flops = tokens * model.training_flops_per_token(config.context_length)
        self.evaluation_steps = evenly_spaced(self.steps, config.evaluations)
        self.byte_lengths = token_byte_lengths(load_tokenizer(tokens_dir))
        self.validation = {name: read_tokens(tokens_dir, f"validation.{name}") for name in validation_names(tokens_dir)}

    def batch(self, step: int) -> Batch:
        return self.windows.batch(step)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.model(batch["ids"])
        return F.cross_entropy(logits.float().flatten(0, 1), batch["targets"].flatten(), reduction="sum"), {}

    def targets(self, batch: Batch) -> float:
        return batch["targets"].numel()

    def size(self, batch: Batch) -> int:
        return batch["targets"].numel()

    def evaluate(self, step: int) -> dict[str, float]:
        figures = {}
        for name, file in self.validation.items():
            loss = held_out_loss(self.model, file, self.byte_lengths, self.config.context_length,
                                 max_tokens=self.config.validation_tokens, device=self.device,
                                 precision=choose_precision(self.device))
            figures[f"bits_per_byte/{name}"] = loss.bits_per_byte
        return figures
