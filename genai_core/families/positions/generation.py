"""Opening the directory of a transformer whose positions are compared."""

from pathlib import Path

import torch

from genai_core.families.directory import load_into, read_shape
from genai_core.families.positions.model import PositionalLanguageModel, PositionalShape
from genai_core.inference.text import OpenedTextModel


def open_positional(directory: Path, device: torch.device) -> OpenedTextModel:
    """The model of a directory. Raises InputError, naming the file, when it is damaged or of another kind."""
    model = PositionalLanguageModel(read_shape(directory, PositionalShape))
    load_into(model, directory, device)
    return OpenedTextModel(directory, model, device)
