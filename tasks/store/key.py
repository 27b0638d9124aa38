"""The key of a stage: everything that its artifact depends on, no more and no less."""

import hashlib
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic_core import to_jsonable_python

from genai_core.config.base import Config
from genai_core.models import kinds
from genai_core.models.opened import kind_of
from tasks.stage import Stage
from tasks.store.artifacts import Artifact, KeyParts
from tasks.store.fingerprint import Digests, code_fingerprint
from tasks.store.workspace import Workspace

TABLE = "genai_core.models.kinds"
ARGUMENTS = "(arguments)"


def key_parts(stage: Stage, config: Config, inputs: Mapping[str, Artifact], workspace: Workspace,
              in_service: Mapping[str, Artifact] | None = None,
              elsewhere: Mapping[str, set[str]] = MappingProxyType({})) -> KeyParts:
    """What the artifact of `stage` depends on: the settings that it is given, the bytes of its inputs, its code.

    `in_service` has the models of the release in service that it is held against; `elsewhere` the kinds of models, by
    the digest of their artifact, that are not in this workspace.
    """
    settings = {name: _plain(setting(config, name)) for name in stage.settings.values()}
    digests = {name: inputs[name].digest for name in stage.input_stages}
    digests |= {f"in service: {name}": artifact.digest for name, artifact in sorted((in_service or {}).items())}
    if stage.outside:
        digests |= resolve(stage.outside)(setting(config, stage.settings["config"]), workspace.root)
    code: Digests = code_fingerprint(stage.core)
    if TABLE in code:
        opened = [*(inputs[name] for name in stage.input_stages), *(in_service or {}).values()]
        for kind in sorted(_opened_kinds(opened, workspace, elsewhere)):
            code |= code_fingerprint(kinds.loader_of(kind).partition(":")[0])
    # which argument is given what is decided by the declaration, so it counts as code
    arguments = [stage.settings, stage.inputs, *([stage.in_service] if stage.in_service else [])]
    declared = json.dumps(arguments, default=lambda first_of: first_of.stages)
    code[ARGUMENTS] = {"": hashlib.sha256(declared.encode()).hexdigest()[:16]}
    return KeyParts(stage.name, settings, digests, dict(sorted(code.items())))


def setting(config: Any, name: str) -> Any:
    """The value of `section` or `section.field` of a config."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def resolve(dotted: str) -> Any:
    """What `module:name` names."""
    module, _, name = dotted.partition(":")
    return getattr(import_module(module), name)


def _plain(value: Any) -> Any:
    return to_jsonable_python(value.for_key() if isinstance(value, Config) else value)


def _opened_kinds(artifacts: list[Artifact], workspace: Workspace, elsewhere: Mapping[str, set[str]]) -> set[str]:
    """Kinds of the models among the inputs: a stage that opens models by the table runs the code that opens them."""
    return {kind for artifact in artifacts
            for kind in elsewhere.get(artifact.digest) or kinds_in(artifact.directory(workspace))}


def kinds_in(directory: Path) -> set[str]:
    """Kinds of the models in the directory of an artifact."""
    return {kind_of(path.parent) for path in (*directory.glob("config.json"), *directory.glob("*/config.json"))}
