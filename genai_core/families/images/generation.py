"""Loading a model that makes images, and making them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from genai_core.errors import InputError
from genai_core.families.diffusion.model import Diffusion, DiffusionShape
from genai_core.families.directory import load_into, model_type_of, read_shape
from genai_core.families.gan.model import Gan, GanShape
from genai_core.families.images.digits import CLASSES
from genai_core.families.vae.model import Vae, VaeShape


class ImageModel(Protocol):
    @property
    def shape(self) -> Any:
        """What it was built from; `classes` is 0 for a model that knows no labels."""

    def generate(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, 1, H, W) from 0 to 1, one for each label (B,)."""


def load_vae(directory: Path, device: torch.device) -> Vae:
    model = Vae(read_shape(directory, VaeShape))
    load_into(model, directory, device)
    return model


def load_gan(directory: Path, device: torch.device) -> Gan:
    model = Gan(read_shape(directory, GanShape))
    load_into(model, directory, device)
    return model


def load_diffusion(directory: Path, device: torch.device) -> Diffusion:
    model = Diffusion(read_shape(directory, DiffusionShape))
    load_into(model, directory, device)
    return model


LOADERS: dict[str, Callable[[Path, torch.device], ImageModel]] = {
    "vae": load_vae, "gan": load_gan, "diffusion": load_diffusion}


def is_image_model(directory: Path) -> bool:
    return model_type_of(directory) in LOADERS


def load_image_model(directory: Path, device: torch.device) -> ImageModel:
    """Raises InputError for a directory whose model makes no images."""
    kind = model_type_of(directory)
    if kind not in LOADERS:
        raise InputError(f"{directory}: a model of type {kind or 'language model'} makes no images")
    return LOADERS[kind](directory, device)


def make_images(directory: Path, count: int, label: int | None, seed: int, device: torch.device) -> Tensor:
    """`count` images of a model directory, of one digit or of each in turn. Raises InputError for a digit that a
    model without labels is asked for."""
    model = load_image_model(directory, device)
    if label is not None and not 0 <= label < CLASSES:
        raise InputError(f"--class {label}: the classes are 0 to {CLASSES - 1}")
    if label is not None and not takes_labels(model):
        raise InputError(f"{directory.parent.name}: this model was trained without labels, so it cannot be asked for a "
                         "digit; leave --class out")
    labels = torch.arange(count) % CLASSES if label is None else torch.full((count,), label)
    return model.generate(labels.to(device), torch.Generator().manual_seed(seed))


def takes_labels(model: ImageModel) -> bool:
    return bool(model.shape.classes)
