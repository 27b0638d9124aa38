"""What the registry has to serve: a model with those that it was made from, and whether its alias has moved."""

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from rich.console import Console

from genai_core.errors import InputError
from genai_core.models.opened import kind_of, served
from genai_core.serving.engines.description import LANGUAGE_MODELS, weights_size
from genai_core.serving.pool import ServedModel, ServedModels
from tasks.language_model import BASE
from tasks.registry.files import resolve
from tasks.registry.lineage import lineage
from tasks.registry.versions import directory_of, read_version
from tasks.store.workspace import Workspace
from tasks.views.comparison import evaluated_figures
from tasks.views.lineage_views import as_tree

SHORT = {"adopt": "base", "pretrain": "base", "instruct": "instruct", "rlhf": "rlhf", "quantize": "quantized"}
"""Stage to the short name by which its model may be asked for."""
TITLES = {"adopt": "Base", "pretrain": "Base", "instruct": "Instruct", "rlhf": "RLHF", "quantize": "Quantized"}
SHOWN = ("bits_per_byte", "accuracy", "exact_match", "chrf", "gold_reward")
"""Endings of the figures that the page shows."""


class Watched:
    """A model of the registry, under an alias that may move."""

    def __init__(self, uri: str):
        self.uri = uri

    def served_models(self) -> ServedModels:
        """The model and those that it was made from, the base model last. Raises InputError when the registry lacks it.
        """
        chain = _chain(read_version(self.uri))
        served_models = [_served_model(version) for version in chain]
        if not _any_chats(chain):
            served_models = [replace(served_model, chats=False) for served_model in served_models]
        return [replace(served_models[0], aliases=(*served_models[0].aliases, self.uri)), *served_models[1:]]

    def look(self, key: str) -> ServedModels | None:
        """What is on offer when the alias has moved away from the version `key`; None where it has not."""
        return self.served_models() if _key(read_version(self.uri)) != key else None


def served_model_of_path(path: Path) -> ServedModel:
    """A model directory or a GGUF file, which no registry knows. Raises InputError for neither."""
    if not path.exists():
        raise InputError(f"{path}: there is no such model directory or GGUF file")
    name = path.stem if path.is_file() else path.resolve().name
    return ServedModel(name, str(path.resolve()), lambda: path, (str(path),), size=weights_size(path),
                 chats=path.is_file() or kind_of(served(path)) in LANGUAGE_MODELS)


def _chain(version: Any) -> list[Any]:
    """A version and the language models that it was made from, one after the other."""
    found = {version.name: version}
    while parent := version.tags.get("parent", ""):
        version = read_version(parent)
        if version.name in found or version.tags.get("stage") not in SHORT:
            break
        found[version.name] = version
    return list(found.values())


def knows_chats(version: Any) -> bool:
    """Whether a version was fine-tuned on chats, or made from one that was."""
    return _any_chats(_chain(version))


def _any_chats(chain: list[Any]) -> bool:
    return any(version.tags.get("stage") in ("instruct", "rlhf") for version in chain)


def _key(version: Any) -> str:
    return f"{version.name}/{version.version}"


def _served_model(version: Any) -> ServedModel:
    stage, key = version.tags.get("stage", ""), _key(version)
    uri, directory = f"models:/{key}", directory_of(Workspace.current(), version)
    figures = {name: value for name, value in evaluated_figures(uri).items()
               if name.endswith(SHOWN) and "/" not in name}
    aliases = (*((SHORT[stage],) if stage in SHORT else ()), uri)
    return ServedModel(version.name, key, partial(resolve, uri), aliases, TITLES.get(stage, stage),
                       chats=stage not in BASE.stages, size=weights_size(directory) if directory else 0,
                       figures=figures, page=_page(version), lineage=_lineage_text(uri))


def _lineage_text(uri: str) -> Callable[[], str]:
    """What gives the lineage of a model as text."""
    def text() -> str:
        out = Console(file=io.StringIO(), width=100, record=True)
        out.print(as_tree(lineage(uri)))
        return out.export_text()
    return text


def _page(version: Any) -> str:
    parts = urlsplit(Workspace.current().tracking_uri)
    uri = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))      # who asks is not told a password
    return f"{uri.rstrip('/')}/#/models/{version.name}/versions/{version.version}" if uri.startswith("http") else ""
