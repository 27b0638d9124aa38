"""Training a classifier on few real digits and many generated ones."""

from pathlib import Path

import torch

from genai_core.context import Context, Result
from genai_core.families.augmentation.config import AugmentedClassifierConfig
from genai_core.families.images.digits import load_digits
from genai_core.families.images.evaluation import balanced_labels
from genai_core.families.images.generation import open_image_model
from genai_core.families.images.train_classifier import train_on
from genai_core.hardware import choose_device


def run(config: AugmentedClassifierConfig, *, data: Path, maker: Path, out_dir: Path, context: Context) -> Result:
    """Train on the digits in `data` and on digits that the model `maker` generates; write the model directory."""
    images, labels = load_digits(data, "train")
    device = choose_device(context.device)
    synthetic_labels = balanced_labels(config.synthetic_images)
    model = open_image_model(maker, device)
    generator = torch.Generator().manual_seed(config.seed)
    synthetic = model.generate(synthetic_labels.to(device), generator).cpu()
    context.reporter.note(f"{len(images):,} real and {len(synthetic):,} synthetic digits")
    all_images, all_labels = torch.cat([images, synthetic]), torch.cat([labels, synthetic_labels])
    return train_on(all_images, all_labels, config, data, out_dir, context)
