"""In what precision a model is asked."""

from contextlib import AbstractContextManager
from typing import Any

from genai_core.hardware import autocast, choose_precision
from genai_core.models.huggingface import HuggingFaceModel
from genai_core.models.language_model import LanguageModel


def inference_precision(model: LanguageModel) -> AbstractContextManager[Any]:
    """A context in which a model answers: bfloat16 where the hardware multiplies it, as in training; on a CPU a model
    of a layout of this project in float32, since that is what its step in C is in (`native.py`)."""
    device = next(model.parameters()).device
    small = device.type == "cpu" and not isinstance(model, HuggingFaceModel)
    return autocast(device, choose_precision(device) if not small else next(model.parameters()).dtype)
