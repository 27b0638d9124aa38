"""The GGUF file of a model: the one beside it, or one that is written from its weights."""

import hashlib
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch

from genai_core.errors import InputError
from genai_core.export.gguf import FILE
from genai_core.export.gguf_layouts import require_llama_cpp, write_any_gguf
from genai_core.export.gguf_tokenizer import NotForLlamaCpp
from genai_core.export.model_directory import load_config, load_model
from genai_core.models.opened import kind_of, served
from genai_core.serving.engines.description import LANGUAGE_MODELS
from genai_core.serving.errors import EngineMissing

DAYS_KEPT = 14
"""How long a written file stays in the cache after its last use."""


def gguf_of(path: Path, cache: Path) -> Path:
    """The GGUF file of a model directory, or `path` itself where it is one.

    A language model in full precision that has none is written as F32 into the folder `cache`, once. Raises InputError
    for what is no model, EngineMissing for one that llama.cpp does not read.
    """
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) == b"GGUF":
                return path
        raise InputError(f"{path}: neither a model directory nor a GGUF file")
    directory = served(path)
    if (directory / "tokenizer.json").is_file() and kind_of(directory) in LANGUAGE_MODELS:
        try:
            require_llama_cpp(load_config(directory), directory)
        except NotForLlamaCpp as error:
            raise EngineMissing(str(error)) from None
    if (directory / FILE).is_file():
        return directory / FILE
    if (kind := kind_of(directory)) != "language_model":
        raise EngineMissing(f"{directory}: llama.cpp reads no model of kind {kind}"
                            f"{', and there is no model.gguf beside it' if kind == 'quantized_language_model' else ''}")
    return _written(directory, cache)


def _written(directory: Path, cache: Path) -> Path:
    target = cache / f"{_identity(directory)}.gguf"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _forget_unused(cache)
        if not target.is_file():
            _write(directory, target)
        target.touch()
    except OSError as error:
        raise InputError(f"{target}: the GGUF file of {directory} cannot be written ({error.strerror or error})"
                         ) from None
    return target


def _write(directory: Path, target: Path) -> None:
    """Write the file whole or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="writing-") as scratch:
        made = Path(scratch) / FILE
        write_any_gguf(load_model(directory, torch.device("cpu")), directory, made, "F32", directory.name)
        made.replace(target)


def _identity(directory: Path) -> str:
    """What tells these files from others of the same name, without reading them all."""
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(directory.iterdir())]
    return hashlib.sha256(repr((str(directory.resolve()), states)).encode()).hexdigest()[:24]


def _forget_unused(cache: Path) -> None:
    for entry in cache.iterdir():
        with suppress(OSError):      # another process does the same
            if time.time() - entry.stat().st_mtime > DAYS_KEPT * 86400:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
