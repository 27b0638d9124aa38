"""Cross-entropy of digit labels."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.context import Context, Result
from genai_core.families.directory import save_family_model
from genai_core.families.images.classifier import ClassifierShape, DigitClassifier
from genai_core.families.images.config import ClassifierConfig
from genai_core.families.images.digits import load_digits
from genai_core.families.images.objective import ImageObjective
from genai_core.hardware import choose_device
from genai_core.models.flops import counted_flops
from genai_core.training.curves import last_values, save_curves
from genai_core.training.loop import train
from genai_core.training.objectives.objective import Batch

LARGEST_SHIFT = 2
"""Training images are moved by up to this many pixels, so that a generated digit may stand anywhere near the middle."""


class DigitLabels(ImageObjective):
    def __init__(self, model: DigitClassifier, images: Tensor, labels: Tensor, data: Path, config: ClassifierConfig,
                 device: torch.device):
        flops = counted_flops(model, torch.zeros(1, 1, 28, 28, device=device))
        super().__init__(images, labels, config, device, flops)
        self.model = model
        self.validation = tuple(tensor.to(device) for tensor in load_digits(data, "validation"))

    def batch(self, step: int) -> Batch:
        batch = super().batch(step)
        down, right = torch.randint(-LARGEST_SHIFT, LARGEST_SHIFT + 1, (2,), generator=self.noise(step)).tolist()
        return batch | {"images": torch.roll(batch["images"], (down, right), dims=(2, 3))}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.model(batch["images"])
        right = (logits.argmax(1) == batch["labels"]).sum()
        return F.cross_entropy(logits.float(), batch["labels"], reduction="sum"), {"accuracy": right.detach()}

    def evaluate(self, step: int) -> dict[str, float]:
        return {"validation_accuracy": accuracy(self.model, *self.validation)}


@torch.no_grad()
def accuracy(model: DigitClassifier, images: Tensor, labels: Tensor) -> float:
    return (model(images).argmax(1) == labels).float().mean().item()


def run(config: ClassifierConfig, *, data: Path, out_dir: Path, context: Context) -> Result:
    """Train the classifier on the digits in `data` and write its model directory to `out_dir`."""
    return train_on(*load_digits(data, "train"), config, data, out_dir, context)


def train_on(images: Tensor, labels: Tensor, config: ClassifierConfig, data: Path, out_dir: Path, context: Context
             ) -> Result:
    """Train a classifier on images (N, 1, H, W) and labels (N,); the held-out digits are those of `data`."""
    device = choose_device(context.device)
    torch.manual_seed(config.seed)
    shape = ClassifierShape(config.channels, config.feature_size)
    model = DigitClassifier(shape).to(device)
    trained = train(model, DigitLabels(model, images, labels, data, config, device), config, context)
    save_family_model(model, "digit_classifier", shape, out_dir)
    save_curves(trained.curves, out_dir)
    test = tuple(tensor.to(device) for tensor in load_digits(data, "test"))
    return Result(trained.metrics | last_values(trained.curves, "validation_accuracy")
                  | {"test_accuracy": accuracy(model, *test)}, trained.measurements)
