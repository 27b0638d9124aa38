"""What model directories of every kind share: a config in which the kind stands, and what an opened model can do.

How each kind is opened stands in `kinds.py`. This file knows no kind, so that a stage that reads a config does not have
the code of every kind in its key.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from genai_core.errors import InputError

if TYPE_CHECKING:
    from genai_core.inference.sampling import Sampling

Product = Literal["chat", "text", "images", "scores", "nothing"]
"""What a model makes of a text: answers to a conversation, text or a label, images, numbers, or nothing."""
SERVED_FORMAT = "int8"
"""Of the formats that quantize makes, the one that serves."""
_PREFIX_BEFORE = "genai-"


class Opened:
    """An opened model. A kind overrides what it can do; asked for anything else it says so."""

    produces: Product = "nothing"

    def __init__(self, directory: Path, model: nn.Module, device: torch.device):
        self.directory = directory
        self.model = model
        self.device = device

    def complete(self, prompt: str, max_new_tokens: int, sampling: "Sampling", seed: int | None = None
                 ) -> Iterator[str]:
        """Pieces of text that follow, answer or label `prompt`. Raises InputError for a model that makes no text."""
        raise self._cannot("makes no text")

    def chat(self, messages: list[dict[str, str]], max_new_tokens: int, sampling: "Sampling", seed: int | None = None
             ) -> Iterator[str]:
        """Pieces of the assistant's answer to a conversation. Raises InputError for a model that does not chat."""
        raise self._cannot("does not chat")

    def score(self, texts: list[str]) -> Tensor:
        """A number for each text (N,). Raises InputError for a model that scores none."""
        raise self._cannot("scores no text")

    def make_images(self, count: int, label: int | None, seed: int) -> Tensor:
        """Images (N, 1, H, W) from 0 to 1, of one class or of each in turn. Raises InputError for other models."""
        raise self._cannot("makes no images")

    def _cannot(self, what: str) -> InputError:
        return InputError(f"{self.directory}: a model of kind {kind_of(self.directory)} {what}")


def served(directory: Path) -> Path:
    """The model directory that serves: `int8/` where quantize wrote several formats, else the directory itself."""
    inner = directory / SERVED_FORMAT
    return inner if inner.is_dir() else directory


def kind_of(directory: Path) -> str:
    """The kind of the model in a directory. Raises InputError when there is none."""
    config = read_json(directory / "config.json")
    if "kind" in config:
        return str(config["kind"])
    # directories that were written before the kind stood in their config
    model_type = str(config.get("model_type", ""))
    if model_type.startswith(_PREFIX_BEFORE):
        return model_type.removeprefix(_PREFIX_BEFORE)
    if model_type != "qwen3":
        raise InputError(f"{directory / 'config.json'}: not the config of a model of this project")
    if (directory / "quantization.json").is_file():
        return "quantized_language_model"
    return "reward_model" if "reward_length" in config else "language_model"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model directory. Raises InputError, naming the file, when it is missing or broken.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: not a model directory") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: not valid JSON of a model directory (an object with fields is expected)")
    return values
