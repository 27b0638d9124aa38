"""Which versions of the registered models stay, by a declared policy, and what the others take up.

A version stays that has an alias (`champion`, `previous`, `candidate`), that a release in service, the one before or
one of the newest names, that is one of the newest of its model, or that is younger than the age.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from tasks.catalog import model_stages
from tasks.registry.versions import model_name
from tasks.tracking import client as tracking

RELEASES = model_name("release")


@dataclass(frozen=True)
class Version:
    """A version of a registered model, and where MLflow keeps its files."""

    name: str
    number: str
    digest: str
    flow_run_id: str
    dvc_md5: str
    model_id: str
    location: str
    stays: bool

    @property
    def folder(self) -> Path | None:
        """Where its files are, when that is a folder of this machine."""
        parsed = urlparse(self.location)
        return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") and parsed.path else None


def versions_by_policy(keep: int, oldest: float) -> list[Version]:
    """Every version of this project's models; `keep` newest of each model and of releases stay, and what is younger
    than `oldest`, in seconds since the epoch."""
    released, found = _released(keep), []
    for stage in model_stages():
        name = model_name(stage)
        entries, aliased = _entries(name)
        newest = {entry.version for entry in entries[-keep:]} if keep else set()
        for entry in entries:
            stays = (entry.version in newest | aliased or f"{name}/{entry.version}" in released
                     or entry.creation_timestamp / 1000 > oldest)
            model_id, location = _files(entry)
            found.append(Version(name, str(entry.version), entry.tags.get("artifact.digest", ""),
                                 entry.tags.get("prefect.flow_run_id", ""), entry.tags.get("dvc.md5", ""), model_id,
                                 location, stays))
    return found


def known_model_ids() -> set[str]:
    """The models, as MLflow numbers them, that a version of any registered model holds."""
    client = tracking.client()
    return {_model_id(version) for model in client.search_registered_models()
            for version in client.search_model_versions(f"name='{model.name}'")}


def remove_version(version: Version) -> None:
    """Take a version out of the registry, and its files away."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = tracking.client()
    client.delete_model_version(version.name, version.number)
    if version.location:
        get_artifact_repository(version.location).delete_artifacts()
        if version.folder and version.folder.parent.name == version.model_id:
            shutil.rmtree(version.folder.parent, ignore_errors=True)
        client.delete_logged_model(version.model_id)


def bytes_of(version: Version) -> int:
    """Size of a version's files, as MLflow lists them."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository, size, waiting = get_artifact_repository(version.location), 0, [""]
    while waiting:
        for entry in repository.list_artifacts(waiting.pop() or None):
            if entry.is_dir:
                waiting.append(entry.path)
            else:
                size += entry.file_size or 0
    return size


def _released(keep: int) -> set[str]:
    """`NAME/VERSION` of what the releases with an alias and the newest ones name."""
    named: set[str] = set()
    for model in tracking.client().search_registered_models(f"name LIKE '{RELEASES}%'"):
        entries, aliased = _entries(model.name)
        newest = {entry.version for entry in entries[-keep:]} if keep else set()
        named |= {value.removeprefix("models:/") for entry in entries if entry.version in newest | aliased
                  for tag, value in entry.tags.items() if tag.startswith("version.")}
    return named


def _entries(name: str) -> tuple[list[Any], set[Any]]:
    """Versions of a registered model, oldest first, and the numbers of those that have an alias."""
    client = tracking.client()
    model = next(iter(client.search_registered_models(f"name='{name}'")), None)
    if model is None:
        return [], set()
    entries = sorted(client.search_model_versions(f"name='{name}'"), key=lambda entry: int(entry.version))
    aliased = {str(number) for number in model.aliases.values()}
    return entries, {entry.version for entry in entries if str(entry.version) in aliased}


def _files(entry: Any) -> tuple[str, str]:
    from mlflow.exceptions import MlflowException

    model_id = _model_id(entry)
    try:
        return model_id, tracking.client().get_logged_model(model_id).artifact_location if model_id else ""
    except MlflowException:
        return model_id, ""


def _model_id(entry: Any) -> str:
    return entry.source.removeprefix("models:/") if (entry.source or "").startswith("models:/m-") else ""
