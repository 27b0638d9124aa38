"""Opening the directory of a generative adversarial network."""

from pathlib import Path

import torch

from genai_core.families.directory import load_into, read_shape
from genai_core.families.gan.model import Gan, GanShape
from genai_core.families.images.generation import OpenedImageModel


def load_gan(directory: Path, device: torch.device) -> Gan:
    """The model of a directory. Raises InputError, naming the file, when it is damaged or of another kind."""
    model = Gan(read_shape(directory, GanShape))
    load_into(model, directory, device)
    return model


def open_gan(directory: Path, device: torch.device) -> OpenedImageModel:
    return OpenedImageModel(directory, load_gan(directory, device), device)
