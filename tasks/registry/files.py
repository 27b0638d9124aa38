"""The files of registered models: fetched by key, compared with their manifests, and never more than is needed."""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from genai_core.errors import InputError
from tasks.catalog import model_stages
from tasks.registry.versions import directory_of, find_version, read_version
from tasks.store import records
from tasks.store.artifacts import KEY, MANIFEST, Artifact, Damaged, Store, key_of, read_manifest
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking

logger = logging.getLogger("tasks")


def resolve(uri: str) -> Path:
    """The directory of a registered model in the workspace, fetched when it is not here or damaged.

    Raises InputError when the registry does not have it, or not the bytes that it says.
    """
    workspace, version = Workspace.current(), read_version(uri)
    stage, key, digest = (version.tags.get(name, "") for name in ("stage", "cache.key", "artifact.digest"))
    if stage not in model_stages() or not KEY.fullmatch(key):
        raise InputError(f"{uri}: its tags name no stage and key of this project, so its files cannot be told")
    store = Store.of(workspace)
    directory = store.directory(stage, "model", key)
    with store.lock(stage, key):
        found = store.find(directory)
        if found and found.digest != digest:      # made again since, with other bytes: that one stays where it is
            directory = workspace.hidden / "registered" / digest / key
            found = store.find(directory)
        found = found or _fetch(workspace, version, directory)
    if found is None or found.digest != digest:
        raise InputError(f"{uri}: its files are gone or are not those that were registered, here and in the registry; "
                         "`genai run` with its settings makes it again")
    return directory


def fetch_model(workspace: Workspace, stage: str, key: str) -> Artifact | None:
    """The model with this key, out of the registry; None if that has none that is whole. Call under the key's lock."""
    version = find_version(stage, key)
    directory = Store.of(workspace).directory(stage, "model", key)
    return _fetch(workspace, version, directory) if version is not None else None


def manifest_of(workspace: Workspace, version: Any) -> dict[str, Any] | None:
    """The manifest of a version, from here or by fetching that one file; None where neither has it as registered."""
    from mlflow.exceptions import MlflowException

    digest, key = version.tags.get("artifact.digest", ""), version.tags.get("cache.key", "")
    directory = directory_of(workspace, version)
    try:
        if directory and (manifest := read_manifest(directory))["digest"] == digest:
            return manifest
    except Damaged as damage:
        logger.warning("%s is damaged (%s): asking the registry", directory, damage)
    try:
        with tempfile.TemporaryDirectory(prefix="genai-manifest-") as folder:
            manifest = read_manifest(_download(version, f"/artifacts/{key}/{MANIFEST}", folder).parent)
    except (MlflowException, OSError, Damaged) as error:
        logger.warning("%s version %s has no manifest (%s)", version.name, version.version, error)
        return None
    return manifest if manifest["digest"] == digest and key_of(manifest) == key else None


def _fetch(workspace: Workspace, version: Any, directory: Path) -> Artifact | None:
    from mlflow.exceptions import MlflowException

    store = Store.of(workspace)
    try:
        with store.fetching(directory) as scratch:
            holder = scratch.with_name("download")
            holder.mkdir()
            root = _download(version, "", str(holder))
            next(path.parent for path in root.rglob(MANIFEST)).rename(scratch)
            artifact = store.adopt(scratch, directory)
    except (MlflowException, OSError, StopIteration) as error:
        logger.warning("%s version %s cannot be downloaded (%s)", version.name, version.version, error)
        return None
    if artifact and not records.read_record(workspace, artifact.stage, artifact.key).get("started"):
        records.write_record(workspace, artifact, json.loads(version.tags.get("record", "{}")))
    return artifact


def _download(version: Any, part: str, folder: str) -> Path:
    import mlflow

    uri = f"models:/{version.name}/{version.version}{part}"
    return Path(tracking.again(f"fetch {uri}", lambda: mlflow.artifacts.download_artifacts(artifact_uri=uri,
                                                                                           dst_path=folder)))
