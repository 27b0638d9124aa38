"""Opening the directory of a diffusion model."""

from pathlib import Path

import torch

from genai_core.families.diffusion.model import Diffusion, DiffusionShape
from genai_core.families.directory import load_into, read_shape
from genai_core.families.images.generation import OpenedImageModel


def load_diffusion(directory: Path, device: torch.device) -> Diffusion:
    """The model of a directory. Raises InputError, naming the file, when it is damaged or of another kind."""
    model = Diffusion(read_shape(directory, DiffusionShape))
    load_into(model, directory, device)
    return model


def open_diffusion(directory: Path, device: torch.device) -> OpenedImageModel:
    return OpenedImageModel(directory, load_diffusion(directory, device), device)
