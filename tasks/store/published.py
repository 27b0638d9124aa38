"""What hosts share by key alone: datasets and reports, with their manifests and how they were made.

The files go to the remote as DVC's objects; then one small document under the key, and one under the digest, name them.
Each is written at once and last, so whoever finds it finds the files.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from tasks.store import dvc, records
from tasks.store.artifacts import Artifact, Store, read_manifest
from tasks.store.remote import Remote, RemoteRefuses, remote_of
from tasks.store.workspace import Workspace

logger = logging.getLogger("tasks")


class Entry(BaseModel):
    """What the remote says of one artifact."""

    model_config = ConfigDict(frozen=True)

    md5: str
    """The name of DVC's list of its files."""
    manifest: dict[str, Any]
    record: dict[str, Any]
    """How it was made."""

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])


def publish(workspace: Workspace, artifacts: list[Artifact], ask: bool = False) -> dict[Artifact, str]:
    """Bring artifacts to the remote unless they were brought there before; the md5 of each one's list of files.

    With `ask` the remote has to say that it still has those. Raises RemoteRefuses when it does not answer, or does not
    take them.
    """
    with dvc.repository(workspace) as opened:
        remote = remote_of(workspace, opened)
        return {artifact: _publish(workspace, opened, remote, artifact, ask) for artifact in artifacts}


def name_datasets(workspace: Workspace, artifacts: list[Artifact]) -> str:
    """Publish datasets, and make `data.dvc` name them and no others, here and on the remote; the md5 of all."""
    with dvc.repository(workspace) as opened:
        remote = remote_of(workspace, opened)
        md5 = dvc.write_data_dvc(workspace, opened, {artifact: _publish(workspace, opened, remote, artifact, ask=True)
                                                     for artifact in artifacts})
        dvc.send(opened, remote, "data", md5)
        return md5


def publish_list(workspace: Workspace, md5: str) -> None:
    """Bring what a `data.dvc` names to the remote, for `dvc pull`, where DVC's cache has it."""
    with dvc.repository(workspace) as opened:
        if Path(opened.cache.local.oid_to_path(md5)).is_file():
            dvc.send(opened, remote_of(workspace, opened), "data", md5)


def find(workspace: Workspace, stage: str, key: str, tries: int | None = None) -> Entry | None:
    """What the remote has under a key; None where it has nothing. Raises RemoteRefuses when it does not say."""
    return _find(workspace, "artifacts", stage, key, tries)


def find_digest(workspace: Workspace, stage: str, digest: str, tries: int | None = None) -> Entry | None:
    """What the remote has of these bytes; None where it has nothing. Raises RemoteRefuses when it does not say."""
    return _find(workspace, "digests", stage, digest, tries)


def fetch(workspace: Workspace, stage: str, kind: str, key: str) -> Artifact | None:
    """The artifact of a key, out of DVC's cache or the remote; None where neither has it whole.

    Call it under the key's lock. Raises RemoteRefuses when the remote does not answer.
    """
    if not dvc.has_remote(workspace):
        return None
    store = Store.of(workspace)
    directory = store.directory(stage, kind, key)
    with dvc.repository(workspace) as opened:
        known = _known(workspace, stage, key)
        if known.get("md5"):
            with store.fetching(directory) as scratch:
                if dvc.receive(workspace, opened, None, f"{stage} {key}", known["md5"], scratch):
                    if artifact := store.adopt(scratch, directory):
                        return artifact
                    dvc.forget(workspace, opened, known["md5"])
        remote = remote_of(workspace, opened)
        entry = _entry(remote, "artifacts", stage, key, None)
        if entry is None:
            return None
        with store.fetching(directory) as scratch:
            if not dvc.receive(workspace, opened, remote, f"{stage} {key}", entry.md5, scratch):
                return None
            artifact = store.adopt(scratch, directory)
    if artifact:
        records.write_record(workspace, artifact, {**entry.record, "digest": artifact.digest})
        _remember(workspace, artifact, entry.md5, remote.identity)
    return artifact


def read_file(workspace: Workspace, entry: Entry, name: str) -> bytes | None:
    """One file of a published artifact; None where it has none of this name. Nothing else is fetched."""
    from dvc_data.hashfile.tree import Tree

    with dvc.remote(workspace) as remote:
        def read() -> bytes | None:
            listing = json.loads(remote.fs.cat_file(remote.objects.oid_to_path(entry.md5)))
            found = {item[Tree.PARAM_RELPATH]: item["md5"] for item in listing}
            return remote.fs.cat_file(remote.objects.oid_to_path(found[name])) if name in found else None

        try:
            return remote.ask(f"read {name}", read)
        except FileNotFoundError:
            return None


def all_known(workspace: Workspace, artifacts: list[Artifact]) -> bool:
    """Whether every artifact is on the remote, as far as is known where it does not answer."""
    with dvc.remote(workspace) as remote:
        try:
            return all(_is_there(workspace, artifact, remote, tries=1) for artifact in artifacts)
        except RemoteRefuses as silent:
            logger.warning("whether the remote still has the datasets is not known: %s", silent)
            return all(_was_brought(workspace, artifact, remote) for artifact in artifacts)


def _is_there(workspace: Workspace, artifact: Artifact, remote: Remote, tries: int | None = None) -> bool:
    """Whether an artifact with these bytes was brought to this remote, or came from it, and its entry is still there.
    """
    return (_was_brought(workspace, artifact, remote)
            and _entry(remote, "artifacts", artifact.stage, artifact.key, tries) is not None)


def _was_brought(workspace: Workspace, artifact: Artifact, remote: Remote) -> bool:
    known = _known(workspace, artifact.stage, artifact.key)
    return known.get("digest") == artifact.digest and remote.identity in known.get("remotes", [])


def _publish(workspace: Workspace, opened: Any, remote: Remote, artifact: Artifact, ask: bool) -> str:
    known = _known(workspace, artifact.stage, artifact.key)
    same = known.get("digest") == artifact.digest
    tree = dvc.remember(workspace, opened, artifact, known["md5"] if same else "")
    md5 = str(tree.hash_info.value)
    if (_is_there if ask else _was_brought)(workspace, artifact, remote):
        return md5
    dvc.send(opened, remote, f"{artifact.stage} {artifact.key}", md5)
    entry = Entry(md5=md5, manifest=read_manifest(artifact.directory(workspace)),
                  record=records.read_record(workspace, artifact.stage, artifact.key))
    scratch = workspace.scratch / f"entry-{artifact.key}-{os.getpid()}"
    for folder, name in (("digests", artifact.digest), ("artifacts", artifact.key)):
        remote.write_json(entry.model_dump(), scratch, folder, artifact.stage, f"{name}.json")
    _remember(workspace, artifact, md5, remote.identity)
    return md5


def _find(workspace: Workspace, folder: str, stage: str, name: str, tries: int | None) -> Entry | None:
    if not dvc.has_remote(workspace):
        return None
    with dvc.remote(workspace) as remote:
        return _entry(remote, folder, stage, name, tries)


def _entry(remote: Remote, folder: str, stage: str, name: str, tries: int | None) -> Entry | None:
    found = remote.read_json(folder, stage, f"{name}.json", tries=tries)
    return Entry.model_validate(found) if found else None


def _known(workspace: Workspace, stage: str, key: str) -> dict[str, Any]:
    """What this workspace knows of an artifact's way to remotes."""
    return records.read_json(workspace.hidden / "published" / stage / f"{key}.json")


def _remember(workspace: Workspace, artifact: Artifact, md5: str, remote: str) -> None:
    path = workspace.hidden / "published" / artifact.stage / f"{artifact.key}.json"
    known = _known(workspace, artifact.stage, artifact.key)
    remotes = set(known.get("remotes", [])) if known.get("digest") == artifact.digest else set()
    records.write_json(path, {"digest": artifact.digest, "md5": md5, "remotes": sorted(remotes | {remote})})
