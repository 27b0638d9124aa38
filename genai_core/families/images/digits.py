"""The stage digits: the collected images as tensors, one file a split."""

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from genai_core.context import Context, Result
from genai_core.data.shards.tables import read_table
from genai_core.errors import InputError
from genai_core.families.images.config import DigitsConfig

SPLITS = ("train", "validation", "test")
CLASSES = 10


def run(config: DigitsConfig, *, collected: Path, out_dir: Path, context: Context) -> Result:
    """Write `SPLIT.safetensors` with `images` (N, 1, H, W) uint8 and `labels` (N,) int64.

    Raises InputError when a split has no image or the sizes differ.
    """
    reporter = context.reporter
    metrics = {}
    for split in SPLITS:
        rows = read_table(collected, "images", split=split)
        if split == "train" and config.limit and len(rows) > config.limit:      # evenly: they may be sorted by label
            rows = [rows[number * len(rows) // config.limit] for number in range(config.limit)]
        if not rows:
            raise InputError(f"no image in the split {split}; add images or raise collect.{split}_fraction")
        shapes = {(row["height"], row["width"]) for row in rows}
        if len(shapes) > 1:
            raise InputError(f"images of {len(shapes)} different sizes in {split}; they have to be of one size")
        (shape,) = shapes
        pixels = np.stack([np.frombuffer(row["pixels"], np.uint8).reshape(shape) for row in rows])
        labels = torch.tensor([row["label"] for row in rows])
        save_file({"images": torch.from_numpy(pixels)[:, None].contiguous(), "labels": labels},
                  out_dir / f"{split}.safetensors")
        metrics[f"{split}_images"] = len(rows)
    reporter.note(", ".join(f"{name} {count:,}" for name, count in metrics.items()))
    return Result(metrics)


def load_digits(directory: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, H, W) float32 from 0 to 1, and labels (N,). Raises InputError for a file that is not readable."""
    path = directory / f"{split}.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable set of images ({error})") from None
    return tensors["images"].float() / 255, tensors["labels"]
