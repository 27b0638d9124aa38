"""Opening the directory of a recurrent classifier of reviews."""

from pathlib import Path

import torch

from genai_core.families.classification.generation import ReviewClassifier
from genai_core.families.directory import load_into, read_shape
from genai_core.families.many_to_one.model import ManyToOne, ManyToOneShape


def open_many_to_one(directory: Path, device: torch.device) -> ReviewClassifier:
    """The model of a directory. Raises InputError, naming the file, when it is damaged or of another kind."""
    model = ManyToOne(read_shape(directory, ManyToOneShape))
    return ReviewClassifier(directory, load_into(model, directory, device), device)
