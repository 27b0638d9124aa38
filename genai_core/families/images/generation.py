"""Making images with a model of any of the families on images of digits."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from genai_core.errors import InputError
from genai_core.families.images.digits import CLASSES
from genai_core.models.kinds import open_model
from genai_core.models.opened import Opened, kind_of


class ImageModel(Protocol):
    """A model that makes images, one for each label it is given."""

    @property
    def shape(self) -> Any:
        """The dataclass that it was built from; `classes` is 0 for a model that knows no labels."""

    def generate(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, 1, H, W) from 0 to 1, one for each of labels (B,)."""


class OpenedImageModel(Opened):
    """A model that makes images of digits."""

    produces = "images"
    model: Any

    @torch.no_grad()
    def make_images(self, count: int, label: int | None, seed: int) -> Tensor:
        """`count` images (N, 1, H, W) from 0 to 1, of the digit `label` or of each in turn.

        Raises InputError for a label that is no digit, and for any label where the model knows none.
        """
        if label is not None and not 0 <= label < CLASSES:
            raise InputError(f"--class {label}: the classes are 0 to {CLASSES - 1}")
        if label is not None and not self.model.shape.classes:
            raise InputError(f"{self.directory.parent.name}: this model was trained without labels, so it cannot be "
                             "asked for a digit; leave --class out")
        labels = torch.arange(count) % CLASSES if label is None else torch.full((count,), label)
        return self.model.generate(labels.to(self.device), torch.Generator().manual_seed(seed))


def open_image_model(directory: Path, device: torch.device) -> ImageModel:
    """The image model of a directory, of whatever family. Raises InputError for any other directory."""
    opened = open_model(directory, device)
    if not isinstance(opened, OpenedImageModel):
        raise InputError(f"{directory}: a model of kind {kind_of(directory)} makes no images")
    return opened.model
