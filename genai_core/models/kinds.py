"""Which kind of model a directory holds, and the one table by which it is opened.

The kind stands in `config.json`. The table maps it to the dotted name of a function `(directory, device) -> Opened`,
which is resolved when it is needed: the table draws no import, so no family enters the code, and with it the key, of a
stage that opens other models. The kinds of a family stand in the `KINDS` of its folder, those of an installed package
in its entry points of the group `genai_core.kinds`.
"""

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules

import torch

from genai_core.errors import InputError
from genai_core.models.opened import Opened, kind_of, served

KINDS = {
    "language_model": "genai_core.inference.chat:open_language_model",
    "quantized_language_model": "genai_core.inference.chat:open_quantized",
    "reward_model": "genai_core.inference.reward:open_reward_model",
}


def open_model(directory: Path, device: torch.device) -> Opened:
    """The model of a directory, or of the format that serves in a directory of several.

    Raises InputError, naming the file, when the directory is no model or its kind is not known here.
    """
    directory = served(directory)
    module, _, name = loader_of(kind_of(directory)).partition(":")
    opened: Opened = getattr(import_module(module), name)(directory, device)
    return opened


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
