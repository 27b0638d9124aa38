"""What a source names in MLflow, as files: those of a registered version, and what people said of logged answers.

The core reads files and knows no MLflow. So `models:/…` and `feedback:/…` are brought to `.genai/sources/DIGEST` before
a config reaches it, where DIGEST is that of the files: the same files have the same path on every host, and an alias
that moved or new feedback gives another path, and so another key. The address stays in the source's `origins`.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from genai_core.bases.hub import commit_of
from genai_core.bases.places import local_path
from genai_core.config.addresses import REGISTERED, is_in_mlflow, shown
from genai_core.config.base_model import HUB_NAME, BaseModelConfig
from genai_core.config.data import FileSource
from genai_core.data.shards.files import file_digest
from genai_core.errors import InputError
from genai_core.roots import require_allowed
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking
from tasks.tracking.feedback import feedback_rows


def with_files(source: FileSource, name: str) -> FileSource:
    """The source with files of the workspace in place of what it names in MLflow. Raises InputError, in a line that
    names the source, where MLflow is not there or does not have it."""
    if not any(map(is_in_mlflow, source.paths)):
        return source
    paths = tuple(_brought(path, f"collect.sources.{name}.paths") if is_in_mlflow(path) else path
                  for path in source.paths)
    return source.model_copy(update={"paths": paths, "origins": source.paths})


def with_base(base: BaseModelConfig) -> BaseModelConfig:
    """The base with a directory of the workspace in place of a registered version, and with the commit of a model on
    the hub. Raises InputError where neither is there."""
    if is_in_mlflow(base.source):
        folder = _brought(base.source, "base.source")
        root = Workspace.current().root
        found = sorted(path.parent for path in (root / folder).rglob("config.json") if path.parent.name != "int4")
        if not found:
            raise InputError(f"base.source: {base.source}: this version is no language model")
        return base.model_copy(update={"source": found[0].relative_to(root).as_posix(), "origin": base.source})
    if base.source and re.fullmatch(HUB_NAME, base.source) and local_path(base, Workspace.current().root) is None:
        return base.model_copy(update={"revision": commit_of(base.source, base.revision)})
    return base


def _brought(address: str, field: str) -> str:
    """Path, from the workspace on, of the file or folder that an address in MLflow names."""
    workspace = Workspace.current()
    if not tracking.is_there():
        raise InputError(f"{field}: {address}: there is no MLflow yet, neither a server (MLFLOW_TRACKING_URI) nor a "
                         "database of this workspace")
    workspace.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="source-", dir=workspace.scratch) as scratch, _explained(address, field):
        bring = _bring_version if REGISTERED.fullmatch(address) else _bring_feedback
        return _keep(bring(address, Path(scratch), field), Path(scratch) / "files", workspace)


def _bring_feedback(address: str, scratch: Path, field: str) -> Path:
    file = scratch / "feedback.jsonl"
    rows = feedback_rows(address.partition(":/")[2])
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def _bring_version(address: str, scratch: Path, field: str) -> Path:
    """The file or folder of a registered version that an address names, all of its files without more."""
    import mlflow

    parts = REGISTERED.fullmatch(address)
    assert parts
    client, name, inside = tracking.client(), parts["name"], parts["inside"] or ""
    if parts["alias"]:
        version = client.get_model_version_by_alias(name, parts["alias"])
    else:
        version = client.get_model_version(name, parts["version"])
    _require_allowed(client, version, field)
    uri = f"models:/{name}/{version.version}"
    known = {entry.path for entry in _listed(uri, inside)}
    key = version.tags.get("cache.key", "")
    if inside and inside not in known and key:      # the artifact of a stage lies in a folder of the model
        inside = f"artifacts/{key}/{inside}"
        known = {entry.path for entry in _listed(uri, inside)}
    if inside and inside not in known:
        raise InputError(f"{field}: {address}: version {version.version} has no such file or folder")
    place = f"{uri}/{inside}" if inside else uri
    holder = scratch / "download"
    holder.mkdir()
    found = Path(tracking.again(f"fetch {place}", lambda: mlflow.artifacts.download_artifacts(artifact_uri=place,
                                                                                             dst_path=str(holder))))
    if any(path.is_symlink() for path in (found, *found.rglob("*"))):
        raise InputError(f"{field}: {address}: a symbolic link among its files, which could lead anywhere")
    return found


def _listed(uri: str, inside: str) -> list[Any]:
    """What lies beside what is asked for."""
    from mlflow.artifacts import list_artifacts

    beside = inside.rpartition("/")[0]
    return list(list_artifacts(f"{uri}/{beside}" if beside else uri)) if inside else []


def _require_allowed(client: Any, version: Any, field: str) -> None:
    """Of a registry that keeps its files on this machine, those alone that this process may read: whoever registers a
    version says where its files are."""
    storage = client.get_model_version_download_uri(version.name, version.version)
    if storage.startswith("models:/"):      # a logged model, which was registered
        storage = client.get_logged_model(storage.removeprefix("models:/")).artifact_location
    parts = urlsplit(storage)
    if parts.scheme in ("", "file"):
        require_allowed(Path(unquote(parts.path)), field, Workspace.current().root)


def _keep(found: Path, files: Path, workspace: Workspace) -> str:
    """Put a file or the files of a folder where their digest says, and say where."""
    is_file = found.is_file()
    if is_file:
        files.mkdir()
    found.rename(files / found.name if is_file else files)
    digest = _digest(files)
    folder = workspace.sources / digest
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_dir() and _digest(folder) != digest:      # damaged since
        shutil.rmtree(folder)
    try:
        files.rename(folder)
    except OSError:      # another process was faster, or the same was brought before
        if not folder.is_dir():
            raise
        os.utime(folder)      # asked for today: what nobody asks for any more is garbage
    return (folder / found.name if is_file else folder).relative_to(workspace.root).as_posix()


def _digest(folder: Path) -> str:
    """Digest of the files of a folder: of their paths in it and their bytes."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\n{file_digest(file)}\n".encode())
    return digest.hexdigest()[:32]


@contextmanager
def _explained(address: str, field: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            raise InputError(f"{field}: {address}: MLflow has no such {_kind(address)}") from None
        raise InputError(f"{field}: {address}: MLflow does not answer ({shown(tracking.first_line(error))})") from None
    except InputError as error:
        raise error if str(error).startswith(field) else InputError(f"{field}: {address}: {error}") from None


def _kind(address: str) -> str:
    return "model, version or alias" if address.startswith("models:/") else "experiment"
