"""Masked-token pretraining: tell the tokens that were hidden (Devlin et al. 2019, section 3.1)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.context import Context, Result
from genai_core.data.chat import TURN_START, token_id
from genai_core.data.packing import IGNORED
from genai_core.data.tokenizer import load_tokenizer
from genai_core.families.bert.config import MaskedConfig
from genai_core.families.bert.model import Bert, BertShape
from genai_core.families.classification.objective import ReviewLabels
from genai_core.families.classification.reviews import Reviews, load_reviews
from genai_core.families.directory import save_family_model
from genai_core.hardware import choose_device
from genai_core.training.loop import train
from genai_core.training.objectives.objective import Batch
from genai_core.training.outcome import outcome

MASKED, REPLACED = 0.8, 0.1
"""Of the tokens to be told, the share that is masked, and the share that is another token; the rest stays."""


class MaskedTokens(ReviewLabels):
    """The batches of reviews, with other targets."""

    def __init__(self, model: Bert, train_reviews: Reviews, validation: Reviews, config: MaskedConfig, steps: int,
                 flops_per_review: float, mask: int, device: torch.device):
        super().__init__(model, train_reviews, validation, config, steps, flops_per_review, device)
        self.mask, self.fraction, self.vocab_size = mask, config.masked_fraction, model.shape.vocab_size

    def batch(self, step: int) -> Batch:
        return self._hidden(super().batch(step), torch.Generator().manual_seed(self.config.seed * 1_000_003 + step))

    def _hidden(self, batch: Batch, generator: torch.Generator) -> Batch:
        shape = batch["ids"].shape
        chosen = (torch.rand(shape, generator=generator) < self.fraction).to(self.device) & batch["real"]
        fate = torch.rand(shape, generator=generator).to(self.device)
        others = torch.randint(self.vocab_size, shape, generator=generator).to(self.device)
        ids = torch.where(chosen & (fate < MASKED), self.mask, batch["ids"])
        ids = torch.where(chosen & (fate >= MASKED) & (fate < MASKED + REPLACED), others, ids)
        return {"ids": ids, "real": batch["real"], "targets": batch["ids"].masked_fill(~chosen, IGNORED)}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        states = self.model.hidden(batch["ids"], batch["real"])      # type: ignore[operator]
        told = batch["targets"] != IGNORED
        logits = self.model.head(states[told])      # type: ignore[operator]  # of the hidden tokens only
        targets = batch["targets"][told]
        right = (logits.argmax(-1) == targets).sum()
        return F.cross_entropy(logits.float(), targets, reduction="sum"), {"accuracy": right.detach()}

    def targets(self, batch: Batch) -> float:
        return max(1, int((batch["targets"] != IGNORED).sum()))

    def size(self, batch: Batch) -> int:
        return len(batch["ids"])

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        totals = {"loss": 0.0, "accuracy": 0.0, "count": 0.0}
        generator = torch.Generator().manual_seed(0)
        for first in range(0, min(400, len(self.validation.ids)), 100):
            rows = slice(first, first + 100)
            batch = self._hidden({"ids": self.validation.ids[rows].to(self.device),
                                  "real": self.validation.real[rows].to(self.device)}, generator)
            loss, others = self.loss(batch)
            totals["loss"] += loss.item()
            totals["accuracy"] += others["accuracy"].item()
            totals["count"] += self.targets(batch)
        return {"held_out_masked_loss": totals["loss"] / totals["count"],
                "held_out_masked_accuracy": totals["accuracy"] / totals["count"]}


def run(config: MaskedConfig, *, data: Path, out_dir: Path, context: Context) -> Result:
    """Pretrain an encoder on the reviews in `data`, their labels unseen; write the model directory to `out_dir`."""
    device = choose_device(context.device)
    torch.manual_seed(config.seed)
    reviews, tokenizer = load_reviews(data, "train"), load_tokenizer(data)
    shape = BertShape(tokenizer.get_vocab_size(), config.hidden_size, config.heads, config.layers,
                      config.feed_forward_size, reviews.ids.shape[1])
    model = Bert(shape).to(device)
    steps = max(1, round(len(reviews.labels) * config.epochs / config.batch_size))
    objective = MaskedTokens(model, reviews, load_reviews(data, "validation"), config, steps,
                             flops_per_text(model, shape.text_tokens), token_id(tokenizer, TURN_START), device)
    trained = train(model, objective, config, context)
    save_family_model(model, "bert", shape, out_dir, data)
    return outcome(trained, model, out_dir, "held_out")


def flops_per_text(model: Bert, length: int) -> float:
    """6 N + 12 L C T for each token, N the weights of the blocks (Kaplan et al. 2020)."""
    weights = sum(parameter.numel() for parameter in model.layers.parameters() if parameter.dim() == 2)
    return length * (6.0 * weights + 12 * model.shape.layers * model.shape.hidden_size * length)
