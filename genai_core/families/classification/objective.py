"""Cross-entropy of the sentiment of reviews, for any model of ids (B, T) and of what of them is real."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.data.batches import epoch_rows
from genai_core.families.classification.config import ReviewTrainConfig
from genai_core.families.classification.reviews import Reviews
from genai_core.training.objectives.objective import Batch, Objective, evenly_spaced

EVALUATION_BATCH = 100


class ReviewLabels(Objective):
    unit = "reviews"
    fixed_shapes = False      # batches are as long as their longest review

    def __init__(self, model: nn.Module, train: Reviews, validation: Reviews, config: ReviewTrainConfig, steps: int,
                 flops_per_review: float, device: torch.device):
        self.model, self.reviews, self.validation, self.config, self.device = model, train, validation, config, device
        self.steps = steps
        self.flops = steps * config.batch_size * flops_per_review
        self.evaluation_steps = evenly_spaced(steps, config.evaluations)

    def batch(self, step: int) -> Batch:
        count = len(self.reviews.labels)
        rows = torch.from_numpy(epoch_rows(count, step, self.config.batch_size, self.config.seed))
        longest = int(self.reviews.real[rows].sum(1).max())
        return {"ids": self.reviews.ids[rows, :longest].to(self.device),
                "real": self.reviews.real[rows, :longest].to(self.device),
                "labels": self.reviews.labels[rows].to(self.device)}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.model(batch["ids"], batch["real"])
        right = (logits.argmax(1) == batch["labels"]).sum()
        return F.cross_entropy(logits.float(), batch["labels"], reduction="sum"), {"accuracy": right.detach()}

    def targets(self, batch: Batch) -> float:
        return len(batch["labels"])

    def size(self, batch: Batch) -> int:
        return len(batch["labels"])

    def evaluate(self, step: int) -> dict[str, float]:
        seen = predict(self.model, self.validation, self.device)
        return {"validation_accuracy": (seen == self.validation.labels).float().mean().item()}


@torch.no_grad()
def predict(model: nn.Module, reviews: Reviews, device: torch.device) -> Tensor:
    """The likeliest label of each review (N,)."""
    model.eval()
    parts = []
    for first in range(0, len(reviews.labels), EVALUATION_BATCH):
        rows = slice(first, first + EVALUATION_BATCH)
        longest = int(reviews.real[rows].sum(1).max())
        parts.append(model(reviews.ids[rows, :longest].to(device), reviews.real[rows, :longest].to(device))
                     .argmax(1).cpu())
    return torch.cat(parts)
