"""Reward functions of installed packages, entry points of the group `genai_core.rewards`.

They are called as TRL calls its reward functions for conversations: `function(prompts=…, completions=…, answers=…)`
with a list of messages for each prompt and each completion, and the answers of its record that count as right. A
function takes what it needs and the rest by `**others`, and returns one number for each completion.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from genai_core.config.rewards import FUNCTIONS, FunctionReward
from genai_core.config.training import RlhfConfig
from genai_core.data.chat import Chat
from genai_core.errors import InputError


def function_digests(config: RlhfConfig, root: Path) -> dict[str, str]:
    """Of each function among the rewards, by its package and version: SHA-256 of the package's Python files."""
    digests = {}
    for name, reward in config.rewards.items():
        if isinstance(reward, FunctionReward):
            entry = _entry(reward.function)
            package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.module
            digests[f"rlhf.rewards.{name}, {entry.value} of {package}"] = _source_digest(entry)
    return digests


def call_function(function: str, prompts: list[Chat], answers: list[str], right: list[list[str]]) -> list[Any]:
    """What the function of this name returns for answers to prompts."""
    completions = [[{"role": "assistant", "content": answer}] for answer in answers]
    return list(_load(function)(prompts=prompts, completions=completions, answers=right))


@cache
def _load(function: str) -> Callable[..., Any]:
    return _entry(function).load()


def _entry(function: str) -> EntryPoint:
    for entry in entry_points(group=FUNCTIONS):
        if entry.name == function:
            return entry
    raise InputError(f"no installed package offers the reward function {function!r}")


def _source_digest(entry: EntryPoint) -> str:
    """SHA-256 of the Python files of the top-level package, or of the module, that the function is in."""
    top = entry.module.split(".")[0]
    spec = find_spec(top)
    if spec is None:
        raise InputError(f"the module {top} of the reward function {entry.name!r} is not installed")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = [(file.relative_to(folder), file) for folder in folders for file in folder.rglob("*.py")]
    files += [(Path(top), Path(spec.origin))] if spec.origin and not folders else []
    digest = hashlib.sha256()
    for name, file in sorted(files):
        digest.update(f"{name.as_posix()}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
