"""Records of how artifacts were made: when, where, how long, by which commit and run.

They lie beside the artifacts, not in them, so that equal inputs make equal artifacts.
"""

import json
import os
import platform
import socket
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tasks.store.artifacts import Artifact
from tasks.store.workspace import REPOSITORY, Workspace


def _path(workspace: Workspace, stage: str, key: str) -> Path:
    return workspace.hidden / "records" / stage / f"{key}.json"


def write_record(workspace: Workspace, artifact: Artifact, values: dict[str, Any]) -> None:
    """Add `values` to the record of an artifact."""
    path = _path(workspace, artifact.stage, artifact.key)
    write_json(path, read_json(path) | values)


def read_record(workspace: Workspace, stage: str, key: str) -> dict[str, Any]:
    """The record, or an empty one for an artifact that was fetched or whose record is unreadable."""
    return read_json(_path(workspace, stage, key))


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a small document at once, in place of an earlier one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    scratch.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A small document, or an empty one where it is missing or unreadable."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def mark_used(workspace: Workspace, artifact: Artifact) -> None:
    """Note that a run used the artifact now: what no recent run used may be collected as garbage."""
    path = _path(workspace, artifact.stage, artifact.key)
    if path.is_file():
        os.utime(path)
    else:
        write_record(workspace, artifact, {"digest": artifact.digest})


def last_used(workspace: Workspace, stage: str, key: str) -> float:
    """Seconds since the epoch; 0 where no run is known to have used it."""
    path = _path(workspace, stage, key)
    return path.stat().st_mtime if path.is_file() else 0.0


def host() -> dict[str, Any]:
    return {"host": socket.gethostname(), "cores": os.cpu_count()}


LIBRARIES = ("torch", "numpy", "pyarrow", "tokenizers", "gigatoken", "safetensors", "scikit-learn", "sacrebleu", "ftfy",
             "beautifulsoup4", "py3langid", "pydantic", "pyyaml", "matplotlib", "zstandard", "gguf", "xllamacpp")
"""What stages compute with, and what a registered model imports."""


@cache
def environment() -> dict[str, str]:
    """Versions of Python and of the libraries that stages compute with: no part of any key, recorded beside it."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


def environment_difference(record: dict[str, Any]) -> str:
    """How the environment of a record differs from the one here, in words; empty where it does not or is not known."""
    here = environment()
    then: dict[str, str] = record.get("environment", {})
    return ", ".join(f"{name} {then[name]} → {here.get(name, 'not installed')}" for name in then
                     if then[name] != here.get(name))


def git_commit() -> str:
    """Commit of the code, with `-dirty` when tracked files differ from it; `unknown` outside git.

    `data.dvc` is left out: every run that makes new data rewrites it.
    """
    def git(*arguments: str) -> str:
        result = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False)
        return result.stdout.strip() if result.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    if not commit:
        return "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!data.dvc")
    return f"{commit}-dirty" if changed else commit
