"""A classifier that learns from few real digits and many that a model made of them."""

from pathlib import Path

import torch

from genai_core.context import Context, Result
from genai_core.families.augmentation.config import AugmentedClassifierConfig
from genai_core.families.images.digits import load_digits
from genai_core.families.images.evaluation import asked_labels
from genai_core.families.images.generation import open_image_model
from genai_core.families.images.train_classifier import train_on
from genai_core.hardware import choose_device


def run(config: AugmentedClassifierConfig, *, data: Path, maker: Path, out_dir: Path, context: Context) -> Result:
    """Train on the digits in `data` and on digits that the model `maker` was asked for; write the model directory."""
    images, labels = load_digits(data, "train")
    device = choose_device(context.device)
    asked = asked_labels(config.synthetic_images)
    model = open_image_model(maker, device)
    made = model.generate(asked.to(device), torch.Generator().manual_seed(config.seed)).cpu()
    context.reporter.note(f"{len(images):,} real and {len(made):,} made digits")
    return train_on(torch.cat([images, made]), torch.cat([labels, asked]), config, data, out_dir, context)
