"""Masked-token pretraining: fill in the tokens that were hidden (Devlin et al. 2019, section 3.1)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.context import Context, Result
from genai_core.data.chat import TURN_START, token_id
from genai_core.data.tokens.batches import IGNORED, epoch_rows
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.families.bert.config import MaskedConfig
from genai_core.families.bert.model import Bert, BertShape
from genai_core.families.classification.objective import EVALUATION_BATCH, steps_of
from genai_core.families.classification.reviews import Reviews, load_reviews
from genai_core.families.training import train_family_model
from genai_core.models.flops import flops_per_token, matrix_weights
from genai_core.training.objectives.objective import Batch, Objective, evenly_spaced

MASKED = 0.8
"""Share of the targets whose token is replaced by the mask."""
REPLACED = 0.1
"""Share of the targets whose token is replaced by a random one; the others stay as they are."""
EVALUATION_REVIEWS = 400
"""Most validation reviews that the held-out figures are measured on."""


class MaskedTokens(Objective):
    """Cross-entropy in nats of the tokens that were chosen as targets, a random share of each review."""

    unit = "reviews"
    fixed_shapes = False      # batches are as long as their longest review

    def __init__(self, model: Bert, train: Reviews, validation: Reviews, config: MaskedConfig, mask_id: int,
                 device: torch.device):
        self.model = model
        self.train = train
        self.validation = validation
        self.config = config
        self.mask_id = mask_id
        self.device = device
        self.steps = steps_of(config, len(train.labels))
        self.flops = self.steps * config.batch_size * flops_per_text(model, train.ids.shape[1])
        self.evaluation_steps = evenly_spaced(self.steps, config.evaluations)

    def batch(self, step: int) -> Batch:
        rows = epoch_rows(len(self.train.labels), step, self.config.batch_size, self.config.seed)
        batch = self.train.batch(torch.from_numpy(rows), self.device)
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        return self._masked(batch["ids"], batch["attention_mask"], generator)

    def _masked(self, ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Batch:
        """Ids (B, T) with the targets hidden, and the targets (B, T), IGNORED elsewhere."""
        is_target = torch.rand(ids.shape, generator=generator) < self.config.masked_fraction
        is_target = is_target.to(self.device) & attention_mask
        fate = torch.rand(ids.shape, generator=generator).to(self.device)
        random_ids = torch.randint(self.model.shape.vocab_size, ids.shape, generator=generator).to(self.device)
        hidden = torch.where(is_target & (fate < MASKED), self.mask_id, ids)
        hidden = torch.where(is_target & (fate >= MASKED) & (fate < MASKED + REPLACED), random_ids, hidden)
        return {"ids": hidden, "attention_mask": attention_mask, "targets": ids.masked_fill(~is_target, IGNORED)}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        states = self.model.hidden(batch["ids"], batch["attention_mask"])
        is_target = batch["targets"] != IGNORED
        logits = self.model.head(states[is_target])
        targets = batch["targets"][is_target]
        correct = (logits.argmax(-1) == targets).sum()
        return F.cross_entropy(logits.float(), targets, reduction="sum"), {"accuracy": correct.detach()}

    def targets(self, batch: Batch) -> float:
        return max(1, int((batch["targets"] != IGNORED).sum()))

    def size(self, batch: Batch) -> int:
        return len(batch["ids"])

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        loss, correct, count = 0.0, 0.0, 0.0
        generator = torch.Generator().manual_seed(0)
        for first in range(0, min(EVALUATION_REVIEWS, len(self.validation.ids)), EVALUATION_BATCH):
            rows = slice(first, first + EVALUATION_BATCH)
            batch = self._masked(self.validation.ids[rows].to(self.device),
                                 self.validation.attention_mask[rows].to(self.device), generator)
            batch_loss, sums = self.loss(batch)
            loss += batch_loss.item()
            correct += sums["accuracy"].item()
            count += self.targets(batch)
        return {"held_out_masked_loss": loss / count, "held_out_masked_accuracy": correct / count}


def run(config: MaskedConfig, *, data: Path, out_dir: Path, context: Context) -> Result:
    """Pretrain an encoder on the reviews in `data`, without their labels; write the model directory to `out_dir`."""
    reviews, validation, tokenizer = load_reviews(data, "train"), load_reviews(data, "validation"), load_tokenizer(data)
    shape = BertShape(tokenizer.get_vocab_size(), config.hidden_size, config.heads, config.layers,
                      config.feed_forward_size, reviews.ids.shape[1])

    def objective(model: Bert, device: torch.device) -> MaskedTokens:
        return MaskedTokens(model, reviews, validation, config, token_id(tokenizer, TURN_START), device)

    return train_family_model("bert", Bert, shape, objective, config, context, out_dir, figures=("held_out",),
                              tokenizer_dir=data)


def flops_per_text(model: Bert, length: int) -> float:
    """Floating-point operations of the forward and backward pass for a text of `length` tokens, the head left out: it
    is only asked about the targets."""
    weights = matrix_weights(model.layers)
    return length * flops_per_token(weights, model.shape.layers, model.shape.hidden_size, length)
