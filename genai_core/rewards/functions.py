"""Reward functions of installed packages, entry points of the group `genai_core.rewards`.

They are called much as TRL calls its reward functions for conversations: `function(prompts=…, completions=…,
answers=…)` with a list of messages for each prompt and each completion, and the answers of its record that count as
right. A function takes what it needs and the rest by `**others`, and returns one number for each completion. What TRL
knows besides is left out: there is no `completion_ids`, a function is not async, and None is no number.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from genai_core.config.rewards import FUNCTIONS, AnyReward, FunctionReward
from genai_core.config.training import RlhfConfig
from genai_core.data.chat import Chat
from genai_core.errors import InputError
from genai_core.mapping import Processes, WorkerDied

IMPORT_SECONDS = 60.0
"""Time that importing the module of a function may take when it is checked."""


def function_digests(config: RlhfConfig, root: Path) -> dict[str, str]:
    """Of each function among the rewards, by its package and version: SHA-256 of the package's Python files."""
    digests = {}
    for name, reward in config.rewards.items():
        if isinstance(reward, FunctionReward):
            entry = _entry(reward.function)
            package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.module
            digests[f"rlhf.rewards.{name}, {entry.value} of {package}"] = _source_digest(entry)
    return digests


def check_functions(rewards: Mapping[str, AnyReward]) -> None:
    """Raises InputError for a function among the rewards that cannot be imported, or not be called as it will be.

    Each is imported in a process of its own, and none is called: it may need what only the training has.
    """
    for name, reward in rewards.items():
        if not isinstance(reward, FunctionReward):
            continue
        with Processes(1, IMPORT_SECONDS) as process:
            try:
                fault, = process(_fault, [reward.function])
            except TimeoutError:
                fault = f"importing it takes more than {IMPORT_SECONDS:g} seconds"
            except WorkerDied as death:
                fault = f"importing it ended its process with status {death.status}"
        if fault:
            raise InputError(f"rlhf.rewards.{name}: the function {reward.function!r} cannot be used: {fault}")


def _fault(name: str) -> str:
    """Why a function cannot be called with prompts, completions and answers; empty where it can."""
    try:
        function = _load(name)
    except Exception as error:
        return f"importing it raised {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return "it is async, and is called as an ordinary function"
    try:
        inspect.signature(function).bind(prompts=[], completions=[], answers=[])
    except TypeError as error:
        return f"it cannot be called with prompts=, completions= and answers= ({error})"
    except ValueError:      # of a function in C nothing is known
        pass
    return ""


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
