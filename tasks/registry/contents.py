"""What a release stands on: which versions belong together, and whether the registry still has their files."""

import json
from collections.abc import Sequence
from typing import Any

from genai_core.errors import InputError
from tasks.registry.lineage import lineage
from tasks.registry.releases import Release
from tasks.registry.versions import model_name, read_version
from tasks.stage import Input, named
from tasks.store.artifacts import MANIFEST
from tasks.tracking import client as tracking


def versions_beside(version: Any, stages: Sequence[str], needed: Sequence[Input], reference: str) -> dict[str, str]:
    """The versions of `stages` that belong to the run of a version: those that were judged together, else those that it
    was made from. Raises InputError where one of the `needed` stages is not among them.
    """
    if judged := version.tags.get("gates.versions"):
        numbers: dict[str, str] = json.loads(judged)
    else:
        nodes = lineage(f"models:/{version.name}/{version.version}").all_nodes()
        numbers = {node.stage: node.version.rpartition("/")[2] for node in nodes if node.version}
    alternatives = [named(stage) for stage in needed]
    missing = [" or ".join(stages) for stages in alternatives if not numbers.keys() & set(stages)]
    if missing:
        every = ", ".join(" or ".join(stages) for stages in alternatives)
        raise InputError(f"{reference}: every release holds a model of {every}, and nothing tells which "
                         f"version of {', '.join(missing)} belongs to it; promote the last model of its run")
    return {stage: numbers[stage] for stage in stages if stage in numbers}


def require_files(release: Release) -> None:
    """Raises InputError when the registry has lost a version of the release or files of one."""
    for stage, number in release.versions.items():
        uri = f"models:/{model_name(stage)}/{number}"
        read_version(uri)
        if lost := lost_file(uri):
            raise InputError(f"{uri}: its files are gone from the registry, or cut short ({lost}); what is in "
                             "service stays in service")


def lost_file(uri: str) -> str:
    """The first file of a version that is not where the registry says, or not whole, or why that cannot be told; empty
    when all are there."""
    from mlflow.exceptions import MlflowException

    try:
        folder = _model_folder(uri)
        if not folder:
            return MANIFEST
        there = {entry.path.removeprefix(f"{folder}/"): entry.file_size for entry in _files(uri, folder)}
        declared = json.loads(_text(uri, f"{folder}/{MANIFEST}"))["files"]
        return next((name for name, file in declared.items() if there.get(name) != file["bytes"]), "")
    except (MlflowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return tracking.first_line(error)


def _model_folder(uri: str) -> str:
    """The folder that holds the manifest, below `artifacts/`, where MLflow puts the model of a version."""
    from mlflow.artifacts import list_artifacts

    waiting = ["artifacts"]
    while waiting:
        entries = list_artifacts(f"{uri}/{waiting.pop()}")
        for entry in entries:
            if entry.path.rpartition("/")[2] == MANIFEST:
                return str(entry.path.rpartition("/")[0])
        waiting += [entry.path for entry in entries if entry.is_dir]
    return ""


def _files(uri: str, folder: str) -> list[Any]:
    from mlflow.artifacts import list_artifacts

    found: list[Any] = []
    for entry in list_artifacts(f"{uri}/{folder}"):
        found += _files(uri, entry.path) if entry.is_dir else [entry]
    return found


def _text(uri: str, path: str) -> str:
    from mlflow.artifacts import load_text

    return str(load_text(f"{uri}/{path}"))
