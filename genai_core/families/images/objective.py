"""What the objectives on images share: batches of images, and noise that depends on the step alone."""

import torch
from torch import Tensor

from genai_core.data.tokens.batches import epoch_rows
from genai_core.families.images.config import ImageTrainConfig
from genai_core.training.objectives.objective import Batch, Objective, evenly_spaced


class ImageObjective(Objective):
    """Batches of images (B, 1, H, W) and labels (B,), each epoch in another order."""

    unit = "images"
    fixed_shapes = False      # these networks are small: compiling them takes longer than training them

    def __init__(self, images: Tensor, labels: Tensor, config: ImageTrainConfig, device: torch.device,
                 flops_per_image: float):
        self.images = images
        self.labels = labels
        self.config = config
        self.device = device
        self.steps = config.steps
        self.flops = config.steps * config.batch_size * flops_per_image
        self.evaluation_steps = evenly_spaced(config.steps, config.evaluations)

    def batch(self, step: int) -> Batch:
        count = len(self.images)
        rows = torch.from_numpy(epoch_rows(count, step, self.config.batch_size, self.config.seed))
        return {"images": self.images[rows].to(self.device), "labels": self.labels[rows].to(self.device)}

    def noise(self, step: int) -> torch.Generator:
        """Random generator of a step: the same whenever the step is taken."""
        return torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)

    def targets(self, batch: Batch) -> float:
        return len(batch["images"])

    def size(self, batch: Batch) -> int:
        return len(batch["images"])
