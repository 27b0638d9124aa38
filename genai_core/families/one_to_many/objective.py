"""Cross-entropy of each letter of a digit's name, given its image and the letters before."""

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.context import Context, Result
from genai_core.families.images.digits import load_digits
from genai_core.families.images.objective import ImageObjective
from genai_core.families.one_to_many.config import OneToManyConfig
from genai_core.families.one_to_many.model import NAMES, OneToMany, OneToManyShape, spelled
from genai_core.families.training import train_family_model
from genai_core.models.flops import counted_flops
from genai_core.training.objectives.objective import Batch


class Letters(ImageObjective):
    """Cross-entropy in nats a letter, end marks included; the decoder is given the right letters before."""

    def __init__(self, model: OneToMany, data: Path, config: OneToManyConfig, device: torch.device):
        inputs, _ = spelled(torch.zeros(1, dtype=torch.int64))
        model.decoder.fused = False      # the operations of PyTorch's kernel are not counted
        flops = counted_flops(model, torch.zeros(1, 1, 28, 28, device=device), inputs.to(device))
        model.decoder.fused = None
        super().__init__(*load_digits(data, "train"), config, device, flops)
        self.model = model
        self.validation = load_digits(data, "validation")

    def batch(self, step: int) -> Batch:
        batch = super().batch(step)
        inputs, targets = spelled(batch["labels"])
        return {"images": batch["images"], "inputs": inputs.to(self.device), "targets": targets.to(self.device)}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.model(batch["images"], batch["inputs"])
        return F.cross_entropy(logits.float().flatten(0, 1), batch["targets"].flatten(), reduction="sum"), {}

    def targets(self, batch: Batch) -> float:
        return batch["targets"].numel()

    def evaluate(self, step: int) -> dict[str, float]:
        return {"validation_exact_match": exact_match(self.model, *self.validation, self.device)}


def exact_match(model: OneToMany, images: Tensor, labels: Tensor, device: torch.device) -> float:
    """Share of images (N, 1, H, W) whose name is written right, every letter of it."""
    written = model.write(images.to(device))
    return sum(name == NAMES[label] for name, label in zip(written, labels.tolist(), strict=True)) / len(written)


def run(config: OneToManyConfig, *, data: Path, out_dir: Path, context: Context) -> Result:
    """Train on the digits in `data` and write the model directory to `out_dir`."""
    shape = OneToManyShape(config.cell, config.embedding_size, config.hidden_size)
    objective = partial(Letters, data=data, config=config)
    return train_family_model("one_to_many", OneToMany, shape, objective, config, context, out_dir,
                              figures=("validation",))
