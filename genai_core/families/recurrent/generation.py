"""Opening the directory of a recurrent language model."""

from pathlib import Path

import torch

from genai_core.families.directory import load_into, read_shape
from genai_core.families.recurrent.model import RecurrentLanguageModel, RecurrentShape
from genai_core.inference.text import OpenedTextModel


def open_recurrent(directory: Path, device: torch.device) -> OpenedTextModel:
    """The model of a directory. Raises InputError, naming the file, when it is damaged or of another kind."""
    model = RecurrentLanguageModel(read_shape(directory, RecurrentShape))
    load_into(model, directory, device)
    return OpenedTextModel(directory, model, device)
