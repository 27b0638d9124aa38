"""Cross-entropy of the label of reviews, for any model of token ids (B, T) and their attention mask (B, T)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.data.tokens.batches import epoch_rows
from genai_core.families.classification.config import ReviewTrainConfig
from genai_core.families.classification.reviews import Reviews
from genai_core.training.objectives.objective import Batch, Objective, evenly_spaced

EVALUATION_BATCH = 100


class ReviewLabels(Objective):
    """Cross-entropy in nats a review."""

    unit = "reviews"
    fixed_shapes = False      # batches are as long as their longest review

    def __init__(self, model: nn.Module, train: Reviews, validation: Reviews, config: ReviewTrainConfig, steps: int,
                 flops_per_review: float, device: torch.device):
        self.model = model
        self.train = train
        self.validation = validation
        self.config = config
        self.device = device
        self.steps = steps
        self.flops = steps * config.batch_size * flops_per_review
        self.evaluation_steps = evenly_spaced(steps, config.evaluations)

    def batch(self, step: int) -> Batch:
        rows = epoch_rows(len(self.train.labels), step, self.config.batch_size, self.config.seed)
        return self.train.batch(torch.from_numpy(rows), self.device)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.model(batch["ids"], batch["attention_mask"])
        correct = (logits.argmax(1) == batch["labels"]).sum()
        return F.cross_entropy(logits.float(), batch["labels"], reduction="sum"), {"accuracy": correct.detach()}

    def targets(self, batch: Batch) -> float:
        return len(batch["labels"])

    def size(self, batch: Batch) -> int:
        return len(batch["labels"])

    def evaluate(self, step: int) -> dict[str, float]:
        return {"validation_accuracy": accuracy(predict(self.model, self.validation, self.device), self.validation)}


@torch.no_grad()
def predict(model: nn.Module, reviews: Reviews, device: torch.device) -> Tensor:
    """The likeliest label (N,) of each review."""
    model.eval()
    predictions = []
    for first in range(0, len(reviews.labels), EVALUATION_BATCH):
        batch = reviews.batch(slice(first, first + EVALUATION_BATCH), device)
        predictions.append(model(batch["ids"], batch["attention_mask"]).argmax(1).cpu())
    return torch.cat(predictions)


def accuracy(predictions: Tensor, reviews: Reviews) -> float:
    """Share of the reviews whose label is predicted."""
    return (predictions == reviews.labels).float().mean().item()


def steps_of(config: ReviewTrainConfig, reviews: int) -> int:
    """Optimizer steps that pass over `reviews` reviews as often as the config says, at least one."""
    return max(1, round(reviews * config.epochs / config.batch_size))
