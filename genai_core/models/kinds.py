"""Which kind of model a directory holds, and the one table by which it is opened.

The kind stands in `config.json`. The table maps it to the dotted name of a function `(directory, device) -> Opened`,
which is resolved when it is needed: the table draws no import, so no family enters the code, and with it the key, of a
stage that opens other models. The kinds of a family stand in the `KINDS` of its folder, those of an installed package
in its entry points of the group `genai_core.kinds`.
"""

import json
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from genai_core.errors import InputError

if TYPE_CHECKING:
    from genai_core.inference.generate import Sampling

KINDS = {
    "language_model": "genai_core.inference.chat:open_language_model",
    "quantized_language_model": "genai_core.inference.chat:open_quantized",
    "reward_model": "genai_core.inference.reward:open_reward_model",
}
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


def open_model(directory: Path, device: torch.device) -> Opened:
    """The model of a directory, or of the format that serves in a directory of several.

    Raises InputError, naming the file, when the directory is no model or its kind is not known here.
    """
    directory = served(directory)
    module, _, name = loader_of(kind_of(directory)).partition(":")
    opened: Opened = getattr(import_module(module), name)(directory, device)
    return opened


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


def loader_of(kind: str) -> str:
    """`module:function` that opens a kind. Raises InputError for one that nothing here knows."""
    known = KINDS if kind in KINDS else known_kinds()
    if kind not in known:
        raise InputError(f"a model of kind {kind!r} cannot be opened here; install the package that brings this kind "
                         f"(known: {', '.join(known)})")
    return known[kind]


@cache
def known_kinds() -> dict[str, str]:
    """Every kind and its loader: the language model's, those of the families' folders and of installed packages."""
    families = import_module("genai_core.families")
    found = dict(KINDS)
    for module in iter_modules(families.__path__):
        if module.ispkg:
            found |= getattr(import_module(f"genai_core.families.{module.name}"), "KINDS", {})
    return found | {entry.name: entry.value for entry in entry_points(group="genai_core.kinds")}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model directory. Raises InputError, naming the file, when it is missing or broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{path} is missing: not a model directory") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
