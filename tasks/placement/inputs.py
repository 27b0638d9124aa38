"""Bringing artifacts that another host has made, by their keys: from the registry, or from the remote of the data."""

import logging
from pathlib import Path

from genai_core.errors import InputError
from tasks.catalog import find_stage
from tasks.pipeline import StageRequest
from tasks.registry.files import fetch_model
from tasks.stage import Stage
from tasks.store import published
from tasks.store.artifacts import Artifact, Store
from tasks.store.workspace import Workspace

logger = logging.getLogger("tasks")


def fetch(stage: Stage, workspace: Workspace, directory: Path) -> Artifact | None:
    """A copy, filled in scratch and renamed once its bytes are right; None where nobody has it."""
    if stage.kind == "model":
        return fetch_model(workspace, stage.name, directory.name)
    return published.fetch(workspace, stage.name, stage.kind, directory.name)


def bring_inputs(request: StageRequest) -> None:
    """Have what a stage reads in this workspace. Raises InputError for what is neither here nor elsewhere."""
    workspace = Workspace(request.workspace)
    store = Store.of(workspace)
    for name, artifact in {**request.inputs, **request.in_service}.items():
        stage = find_stage(request.family, name)
        directory = store.directory(stage.name, stage.kind, artifact.key)
        with store.lock(stage.name, artifact.key):
            if store.find(directory):
                continue
            store.discard(directory)
            if not fetch(stage, workspace, directory):
                where = "the registry" if stage.kind == "model" else "the remote of the data"
                raise InputError(f"{name} {artifact.key} is neither in {workspace.root} nor in {where}; let this host "
                                 "see the workspace of the first, or its registry and remote (docs/training-scale.md)")
            logger.info("%s %s fetched", name, artifact.key)
