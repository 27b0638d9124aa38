"""Opening the directory of a bidirectional encoder, and of a classifier on top of one."""

from pathlib import Path

import torch

from genai_core.families.bert.model import Bert, BertClassifier, BertShape
from genai_core.families.classification.generation import ReviewClassifier
from genai_core.families.directory import load_into, read_shape
from genai_core.families.labels import LABELS
from genai_core.models.opened import Opened


def open_encoder(directory: Path, device: torch.device) -> Opened:
    """The encoder of a directory, which classifiers start from; by itself it makes nothing."""
    return Opened(directory, load_into(Bert(read_shape(directory, BertShape)), directory, device), device)


def open_classifier(directory: Path, device: torch.device) -> ReviewClassifier:
    """The classifier of a directory. Raises InputError, naming the file, when it is damaged or of another kind."""
    model = BertClassifier(Bert(read_shape(directory, BertShape)), len(LABELS))
    return ReviewClassifier(directory, load_into(model, directory, device), device)
