"""What nothing refers to any more: artifacts and checkpoints that may be removed.

An artifact stays when a registered version holds it or comes from it, when a data.dvc in the history of git (or the one
here) names it, or when a run of the last days used it. When one of these cannot be asked, nothing is garbage.
"""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genai_core.errors import InputError
from tasks.catalog import FAMILIES, stages_of
from tasks.execution import live_runs
from tasks.registry import versions
from tasks.store import dvc, records
from tasks.store.artifacts import MANIFEST, Damaged, Store, read_manifest
from tasks.store.workspace import Workspace


@dataclass(frozen=True)
class Garbage:
    path: Path
    bytes: int
    why: str


def find_garbage(workspace: Workspace, days: int) -> list[Garbage]:
    """What may go, largest first. Raises InputError while a run is going on, since it may take any artifact."""
    if live_runs.live_parent_runs(workspace):
        raise InputError("a run is going on in this workspace; wait for its end, then collect garbage")
    oldest = time.time() - days * 86400
    artifacts = _artifacts(workspace)
    kept = _registered(artifacts) | _in_git_history(workspace, artifacts)
    kept |= {path for path in artifacts if records.last_used(workspace, path.parent.name, path.name) > oldest}
    kept = _with_inputs(kept, artifacts)
    found = [Garbage(path, _size(path), "no version, no data.dvc and no recent run refers to it")
             for path in artifacts if path not in kept]
    found += [Garbage(path, _size(path), f"a checkpoint that no run of the last {days} days wrote")
              for path in workspace.checkpoints.glob("*/*") if path.is_dir() and _newest(path) <= oldest]
    return sorted(found, key=lambda entry: -entry.bytes)


def remove(workspace: Workspace, entry: Garbage) -> None:
    """Remove one entry, under the lock of its key."""
    store = Store.of(workspace)
    with store.lock(entry.path.parent.name, entry.path.name):
        store.discard(entry.path)


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


def _registered(artifacts: dict[Path, dict[str, Any]]) -> set[Path]:
    """What registered versions hold, and the reports that judged them."""
    digests = versions.registered_digests()
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

