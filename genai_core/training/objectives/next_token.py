"""Next-token prediction on token files."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from genai_core.config.training import LanguageModelConfig
from genai_core.data.tokens.batches import WeightedWindows, Windows
from genai_core.data.tokens.token_files import read_tokens, validation_names
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.evaluation.bits_per_byte import held_out_loss, token_byte_lengths
from genai_core.hardware import choose_precision
from genai_core.models.language_model import LanguageModel
from genai_core.training.objectives.cross_entropy import token_loss
from genai_core.training.objectives.objective import Batch, Objective, evenly_spaced

logger = logging.getLogger("genai_core")

LEAST_CONTEXT = 16
"""Tokens of a window below which nothing of a text is learned."""


class NextToken(Objective):
    """Cross-entropy in nats of each token given those before it in its window.

    Raises InputError when the training tokens are too few for any window.
    """

    unit = "tokens"
    fixed_shapes = True

    def __init__(self, model: LanguageModel, tokens_dir: Path, config: LanguageModelConfig, device: torch.device):
        self.model = model
        self.config = config
        self.device = device
        file = read_tokens(tokens_dir, "train")
        self.length = min(config.context_length, len(file.ids) // 3)
        if self.length < LEAST_CONTEXT:
            raise InputError(f"{len(file.ids):,} training tokens are too few to learn from: it takes "
                             f"{3 * LEAST_CONTEXT}; add text")
        if self.length < config.context_length:
            logger.warning("pretrain: %s training tokens are too few for windows of %s: these have %s", len(file.ids),
                           config.context_length, self.length)
        self.windows = Windows(file, self.length, config.batch_size, config.seed, device) if not config.weights else \
            WeightedWindows(file, config.weights, self.length, config.batch_size, config.seed, device)
        most = config.max_epochs * len(file.ids) if config.max_epochs else config.tokens
        self.steps = max(1, int(min(config.tokens, most)) // (config.batch_size * self.length))
        if most < config.tokens:
            logger.warning("pretrain: %s passes over %s training tokens are fewer than pretrain.tokens %s",
                           config.max_epochs, len(file.ids), config.tokens)
        tokens = self.steps * config.batch_size * self.length
        self.flops = tokens * model.training_flops_per_token(self.length)
        self.evaluation_steps = evenly_spaced(self.steps, config.evaluations)
        self.byte_lengths = token_byte_lengths(load_tokenizer(tokens_dir))
        self.validation = {name: read_tokens(tokens_dir, f"validation.{name}") for name in validation_names(tokens_dir)}

    def batch(self, step: int) -> Batch:
        return self.windows.batch(step)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return token_loss(self.model, self.model.hidden(batch["ids"]), batch["targets"]), {}

    def targets(self, batch: Batch) -> float:
        return batch["targets"].numel()

    def size(self, batch: Batch) -> int:
        return batch["targets"].numel()

    def evaluate(self, step: int) -> dict[str, float]:
        figures, losses = {}, []
        for name, file in self.validation.items():
            loss = held_out_loss(self.model, file, self.byte_lengths, self.config.context_length,
                                 max_tokens=self.config.validation_tokens, device=self.device,
                                 precision=choose_precision(self.device))
            figures[f"bits_per_byte/{name}"] = loss.bits_per_byte
            losses.append(loss.nats / loss.tokens)
        return figures | {"bits_per_byte": sum(figures.values()) / len(figures),
                          "validation_loss": sum(losses) / len(losses)}
