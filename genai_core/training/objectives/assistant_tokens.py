"""Supervised fine-tuning on packed chats, with loss on the assistant's tokens alone."""

import numpy as np
import torch
from torch import Tensor

from genai_core.config.training import InstructConfig
from genai_core.data.instruction.packing import PackedRows
from genai_core.data.tokens.batches import IGNORED, epoch_order, epoch_rows
from genai_core.models.language_model import LanguageModel
from genai_core.models.masks import packed_mask
from genai_core.training.objectives.cross_entropy import select_targets, token_loss
from genai_core.training.objectives.objective import Batch, Objective

VALIDATION_ROWS = 64
"""Most packed rows that the validation loss is measured on."""


class AssistantTokens(Objective):
    """Cross-entropy in nats of the assistant's tokens in packed rows, each with its weight."""

    unit = "tokens"
    fixed_shapes = True

    def __init__(self, model: LanguageModel, rows: PackedRows, validation: PackedRows, config: InstructConfig,
                 device: torch.device):
        self.model = model
        self.rows = rows
        self.validation = validation
        self.config = config
        self.device = device
        self.count = len(rows.ids)
        self.steps = max(1, round(self.count * config.epochs / config.batch_size))
        tokens = self.steps * config.batch_size * config.context_length
        self.flops = tokens * model.training_flops_per_token(config.context_length)
        self.evaluation_steps = frozenset({self.steps // 2})
        self.targets_of_row = (rows.targets != IGNORED).sum(1)
        every = epoch_rows(self.count, 0, self.steps * config.batch_size, config.seed)
        self.most_targets = self._targets_of(every.reshape(self.steps, config.batch_size))
        """Targets of the micro-batch that has most of them: one number, so that the loss is compiled once."""

    def _targets_of(self, rows: np.ndarray) -> int:
        """Most targets of a micro-batch of steps with such rows (…, B)."""
        parts = np.array_split(self.targets_of_row[rows], self.config.accumulation_steps, axis=-1)
        return max(int(part.sum(-1).max()) for part in parts)

    def batch(self, step: int) -> Batch:
        rows = epoch_rows(self.count, step, self.config.batch_size, self.config.seed)
        self.most_targets = max(self.most_targets, self._targets_of(rows))      # past the last step, after going back
        return self.rows.take(rows, self.device)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return weighted_loss(self.model, batch, self.most_targets), {}

    def targets(self, batch: Batch) -> Tensor:
        """Sum of the weights of all targets."""
        return batch["weights"].sum()

    def size(self, batch: Batch) -> int:
        return batch["ids"].numel()

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        loss, targets = 0.0, 0.0
        count = len(self.validation.ids)
        if not count:      # a handful of chats may all be for training
            return {}
        rows = epoch_order(count, 0, self.config.seed)[:VALIDATION_ROWS]      # packing sorts rows by length
        for first in range(0, len(rows), 16):
            batch = self.validation.take(rows[first:first + 16], self.device)
            loss += weighted_loss(self.model, batch, int((batch["targets"] != IGNORED).sum())).item()
            targets += self.targets(batch).item()
        return {"validation_loss": loss / targets} if targets else {}


def weighted_loss(model: LanguageModel, rows: Batch, most_targets: int) -> Tensor:
    """Σ w_t · −log p(x_t) over the targets of packed rows, which are at most so many."""
    states = model.hidden(rows["ids"], rows["position_ids"], packed_mask(rows["segments"]))
    return token_loss(model, *select_targets(states, rows["targets"], rows["weights"], most_targets))
