"""What may be removed, and where it lies: `genai gc`.

The policy: what a registered version that stays (`tasks/registry/retention.py`) holds or comes from stays, what a
data.dvc in the history of git (or the one here) names, and what a run of the last days used or made. When one of these
cannot be asked, nothing is garbage. What other workspaces or hosts may use too goes only when that is asked for.
"""

import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genai_core.errors import InputError
from tasks.catalog import FAMILIES, stages_of
from tasks.execution import live_runs
from tasks.registry import retention
from tasks.registry.retention import Version
from tasks.store import dvc, objects, records
from tasks.store.artifacts import MANIFEST, Damaged, Store, read_manifest
from tasks.store.remote import without_credentials
from tasks.store.workspace import Workspace

PLACES = ("artifacts", "checkpoints", "reports", "sources", "DVC cache", "DVC remote", "MLflow")


@dataclass(frozen=True)
class Policy:
    """What stays, beside what is in service and what was in service before."""

    days: int
    """What a run used or made within so many days."""
    keep: int
    """So many of the newest versions of each registered model, and of the newest releases."""
    shared: bool = False
    """Whether what other workspaces and hosts may use goes too: a remote or an MLflow server outside the workspace."""

    @property
    def oldest(self) -> float:
        return time.time() - self.days * 86400


@dataclass(frozen=True)
class Garbage:
    place: str
    path: Path
    bytes: int
    why: str
    objects: tuple[Path, ...] = ()
    """The single files, where only these go and not the whole folder."""
    version: Version | None = None

    @property
    def name(self) -> str:
        """What it is called in lists, the same each time."""
        return f"{self.version.name} version {self.version.number}" if self.version else str(self.path)


def find_garbage(workspace: Workspace, policy: Policy) -> list[Garbage]:
    """What may go, largest first. Raises InputError while a run is going on, since it may take any artifact."""
    with live_runs.none_going_on(workspace):
        return _find(workspace, policy)


def remove(workspace: Workspace, policy: Policy, listed: list[Garbage]) -> list[Garbage]:
    """Remove what was listed and is still garbage: runs may have used some of it since. No run begins meanwhile."""
    with live_runs.none_going_on(workspace):
        before = {entry.name: set(entry.objects) for entry in listed}
        gone = [entry for entry in _find(workspace, policy) if entry.name in before]
        gone.sort(key=lambda entry: not entry.objects)      # artifacts, which tell which lists are theirs, go last
        for entry in gone:
            if entry.version:
                retention.remove_version(entry.version)
            elif entry.place in ("DVC cache", "DVC remote"):
                objects.remove([path for path in entry.objects if path in before[entry.name]])
            else:
                store = Store.of(workspace)
                with store.lock(entry.path.parent.name, entry.path.name):
                    store.discard(entry.path)
        return gone


def bytes_there(workspace: Workspace) -> dict[str, int]:
    """How much lies in each place now."""
    remote = objects.remote_folder(workspace)
    folders = {"artifacts": [workspace.data, workspace.models], "checkpoints": [workspace.checkpoints],
               "reports": [workspace.reports], "sources": [workspace.sources],
               "DVC cache": [objects.cache_folder(workspace)],
               "DVC remote": [remote] if remote else [], "MLflow": [workspace.root / "mlartifacts"]}
    return {place: sum(_size(folder) for folder in folders[place]) for place in PLACES}


def _find(workspace: Workspace, policy: Policy) -> list[Garbage]:
    every = retention.versions_by_policy(policy.keep, policy.oldest)
    going = [version for version in every if not version.stays and (policy.shared or _is_own(version, workspace))]
    staying = [version for version in every if version not in going]
    artifacts = _artifacts(workspace)
    _require_its_registry(workspace, every, artifacts)
    kept = _held(artifacts, {version.digest for version in staying}) | _in_git_history(workspace, artifacts)
    kept |= {path for path in artifacts if records.last_used(workspace, path.parent.name, path.name) > policy.oldest}
    kept = _with_inputs(kept, artifacts)
    old = [path for path in artifacts if path not in kept]
    found = [Garbage("artifacts", path, _size(path), "no version that stays, no data.dvc, no recent run refers to it")
             for path in old]
    found += _untouched("checkpoints", workspace.checkpoints.glob("*/*"), policy,
                        lambda path: f"a checkpoint that no run of the last {policy.days} days wrote")
    needed = _named_sources(workspace, [artifacts[path] for path in kept])
    found += _untouched("sources", (path for path in workspace.sources.glob("*") if path.name not in needed), policy,
                        lambda path: f"files from MLflow that no run of the last {policy.days} days asked for")
    flow_runs = {version.flow_run_id for version in staying}
    found += _untouched("reports", (page.parent for page in workspace.reports.glob("*/report.html")
                                    if page.parent.name not in flow_runs), policy,
                        lambda path: "the report of a run of which no version stays")
    found += [Garbage("MLflow", version.folder or Path(version.location), retention.bytes_of(version),
                      f"not among the newest {policy.keep}, in no release that stays", version=version)
              for version in going if version.location]
    found += _nobodys_models(workspace, policy)
    found += _objects(workspace, policy, set(old), kept, {version.dvc_md5 for version in staying})
    return sorted(found, key=lambda entry: -entry.bytes)


def _named_sources(workspace: Workspace, manifests: list[dict[str, Any]]) -> set[str]:
    """Folders of files from MLflow that datasets were collected from, without which they could not be made again."""
    folder = re.escape(workspace.sources.relative_to(workspace.root).as_posix())
    configs = json.dumps([manifest["config"] for manifest in manifests if manifest["stage"] == "collect"])
    return set(re.findall(rf"{folder}/([0-9a-f]+)", configs))


def _require_its_registry(workspace: Workspace, versions: list[Version], artifacts: dict[Path, dict[str, Any]]) -> None:
    """Raises InputError when the registry knows none of the models here, so that it is hardly theirs."""
    digests = {manifest["digest"] for path, manifest in artifacts.items() if workspace.models in path.parents}
    if digests and not digests & {version.digest for version in versions}:
        raise InputError(f"gc: the registry at {without_credentials(workspace.tracking_uri)} knows none of the models "
                         "here, so what may go cannot be told; is MLFLOW_TRACKING_URI right?")


def _is_own(version: Version, workspace: Workspace) -> bool:
    return version.folder is not None and workspace.root in version.folder.parents


def _untouched(place: str, folders: Any, policy: Policy, why: Callable[[Path], str]) -> list[Garbage]:
    return [Garbage(place, path, _size(path), why(path)) for path in folders
            if path.is_dir() and _newest(path) <= policy.oldest]


def _nobodys_models(workspace: Workspace, policy: Policy) -> list[Garbage]:
    """Models that MLflow has files of and no version: those of a doubled request, or of a run that died in between."""
    folders = list((workspace.root / "mlartifacts").glob("*/models/m-*"))
    known = retention.known_model_ids() if folders else set()
    return _untouched("MLflow", (path for path in folders if path.name not in known), policy,
                      lambda path: "no registered version holds it")


def _objects(workspace: Workspace, policy: Policy, old: set[Path], kept: set[Path], named: set[str]) -> list[Garbage]:
    """Files of DVC that only removed datasets and reports name: in the cache, and in a remote that is ours alone."""
    staying = {(path.parent.name, path.name) for path in kept}
    dropped = objects.lists_of(workspace, {(path.parent.name, path.name) for path in old})
    for md5 in objects.versions_of_data(workspace):
        held = dvc.directories_of(workspace, md5)
        if held is not None and not held & staying:
            dropped.add(md5)
    dropped -= named | {md5 for md5 in _data_versions(workspace) if md5}
    others, places = objects.named_by_others(workspace), {"DVC cache": objects.cache_folder(workspace)}
    remote = objects.remote_folder(workspace)
    if remote and (policy.shared or workspace.root in remote.parents):
        places["DVC remote"] = remote
    found = []
    for place, folder in places.items():
        if gone := objects.unneeded(workspace, folder, dropped, others, policy.oldest):
            found.append(Garbage(place, folder, sum(path.stat().st_size for path in gone),
                                 "only what is removed, or nothing, names them", objects=tuple(gone)))
    return found


def _artifacts(workspace: Workspace) -> dict[Path, dict[str, Any]]:
    """Every artifact here and its manifest; what has no readable manifest is not ours to judge."""
    found = {}
    places = {(stage.folder, stage.name) for family in ("", *FAMILIES) for stage in stages_of(family)}
    for folder, name in sorted(places):
        for path in sorted((workspace.root / folder / name).glob(f"*/{MANIFEST}")):
            try:
                found[path.parent] = read_manifest(path.parent)
            except Damaged:
                continue
    return found


def _held(artifacts: dict[Path, dict[str, Any]], digests: set[str]) -> set[Path]:
    """What versions that stay hold, and the reports that judged them."""
    return {path for path, manifest in artifacts.items()
            if manifest["digest"] in digests or digests & set(manifest["inputs"].values())}


def _in_git_history(workspace: Workspace, artifacts: dict[Path, dict[str, Any]]) -> set[Path]:
    """Datasets that the data.dvc here, or any committed one, names."""
    named: set[tuple[str, str]] = set()
    for md5 in _data_versions(workspace):
        names = dvc.directories_of(workspace, md5) if md5 else None
        if names is None:      # it or its list of files cannot be read: it could name anything
            return {path for path in artifacts if workspace.data in path.parents}
        named |= names
    return {path for path in artifacts if workspace.data in path.parents and (path.parent.name, path.name) in named}


def _data_versions(workspace: Workspace) -> set[str | None]:
    """The md5 of every data.dvc; None among them for one that cannot be read, say that of an unfinished merge."""
    texts = [(workspace.root / "data.dvc").read_text()] if (workspace.root / "data.dvc").is_file() else []

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(workspace.root), *arguments], capture_output=True, text=True,
                              check=False)
        return done.stdout if done.returncode == 0 else ""

    if git("rev-parse", "--show-toplevel").strip() == str(workspace.root):      # not a folder inside another repository
        commits = git("log", "--all", "--format=%H", "--", "data.dvc").split()
        texts += [git("show", f"{commit}:data.dvc") for commit in commits]
    return {dvc.md5_of(text) for text in texts if text.strip()}


def _with_inputs(kept: set[Path], artifacts: dict[Path, dict[str, Any]]) -> set[Path]:
    """Add every artifact that the kept ones were made from."""
    by_digest: dict[tuple[str, str], set[Path]] = {}
    for path, manifest in artifacts.items():
        by_digest.setdefault((manifest["stage"], manifest["digest"]), set()).add(path)
    waiting, reached = list(kept), set(kept)
    while waiting:
        for stage, digest in artifacts[waiting.pop()]["inputs"].items():
            for path in by_digest.get((stage, digest), set()) - reached:
                reached.add(path)
                waiting.append(path)
    return reached


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _newest(path: Path) -> float:
    return max((file.stat().st_mtime for file in [path, *path.rglob("*")]), default=0.0)

