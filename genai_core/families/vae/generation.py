"""Opening the directory of a variational autoencoder."""

from pathlib import Path

import torch

from genai_core.families.directory import load_into, read_shape
from genai_core.families.images.generation import OpenedImageModel
from genai_core.families.vae.model import Vae, VaeShape


def load_vae(directory: Path, device: torch.device) -> Vae:
    """The model of a directory. Raises InputError, naming the file, when it is damaged or of another kind."""
    model = Vae(read_shape(directory, VaeShape))
    load_into(model, directory, device)
    return model


def open_vae(directory: Path, device: torch.device) -> OpenedImageModel:
    return OpenedImageModel(directory, load_vae(directory, device), device)
