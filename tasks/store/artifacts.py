"""Artifacts: immutable directories with a manifest, whole or not there, never trusted without a look at their bytes."""

import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from tasks.store import locks
from tasks.store.workspace import Workspace

logger = logging.getLogger("tasks")

MANIFEST = "manifest.json"
FIELDS = {"stage", "key", "config", "inputs", "code", "metrics", "files", "digest"}
CARD = "README.md"
"""A model card: kept whole like every file, but outside the digest, so that its words change no identity."""
EARLIER = 3
"""Artifacts that a stage is shown to take parts of them over."""
KEY_LENGTH = 16
KEY = re.compile(f"[0-9a-f]{{{KEY_LENGTH}}}")


class Artifact(BaseModel):
    """What travels between tasks: where an artifact is and what its bytes are, never the bytes."""

    model_config = ConfigDict(frozen=True)

    stage: str
    key: str
    """Digest of everything that the artifact depends on."""
    digest: str
    """Digest of its files."""
    path: str
    """Its directory, relative to the workspace."""

    def directory(self, workspace: Workspace) -> Path:
        return workspace.root / self.path


@dataclass(frozen=True)
class KeyParts:
    """What an artifact depends on, no more and no less."""

    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    code: dict[str, Any]
    """Module to the digest of each of its functions and classes."""

    @property
    def key(self) -> str:
        """Raises TypeError for a value that is not the same in every process, such as a set."""
        parts = [self.stage, self.config, self.inputs, self.code]
        _require_stable(self.config, "")
        _require_stable([self.inputs, self.code], self.stage)
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _require_stable(value: Any, place: str) -> None:
    """Raises TypeError unless a value is made of texts, numbers, lists and mappings by text: what JSON writes the same
    way in every process. NaN equals nothing, itself included."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise TypeError(f"{place}: {name!r} is no text, so it cannot name a part of a key")
            _require_stable(inner, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for inner in value:
            _require_stable(inner, place)
    elif not (value is None or isinstance(value, str | bool | int) or (isinstance(value, float)
                                                                       and math.isfinite(value))):
        raise TypeError(f"{place}: {value!r} has no identity that lasts; a key is made of texts, finite numbers, lists "
                        "and mappings")


class Damaged(Exception):
    """An artifact's bytes are not those that its manifest names."""


class Store:
    """The artifacts of a workspace, by stage and key."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self._verified: dict[Path, tuple[tuple[str, int, int], ...]] = {}

    @classmethod
    def of(cls, workspace: Workspace) -> "Store":
        """The one store of a workspace in this process, so that unchanged files are read once."""
        return _stores.setdefault(workspace, cls(workspace))

    def directory(self, stage: str, kind: str, key: str) -> Path:
        return {"dataset": self.workspace.data, "model": self.workspace.models,
                "report": self.workspace.reports}[kind] / stage / key

    def find(self, directory: Path) -> Artifact | None:
        """The artifact in a directory, its bytes compared with its manifest; None where there is no whole one.

        It only looks. What is damaged or half made is taken away by whoever holds the key's lock and makes it again.
        """
        if not (directory / MANIFEST).is_file():
            return None
        try:
            manifest = self.verify(directory)
        except Damaged as damage:
            logger.warning("%s is damaged (%s): it will be fetched or made again", directory, damage)
            return None
        return self._artifact(directory, manifest)

    def made_by(self, stage: str, kind: str, code: dict[str, Any]) -> tuple[Path, ...]:
        """The whole artifacts of a dataset's stage that the same code has made, those made last first, at most EARLIER
        of them: a stage may take parts of them over."""
        if kind != "dataset":
            return ()
        folder = self.directory(stage, kind, "x").parent
        found = sorted(folder.glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime, reverse=True)
        same = [path.parent for path in found if _code_of(path.parent) == code]
        return tuple(directory for directory in same[:EARLIER] if self.find(directory))

    def verify(self, directory: Path) -> dict[str, Any]:
        """The manifest, after every file was read and compared; each version of the files once in a process.

        Raises Damaged, with the file's name.
        """
        manifest = read_manifest(directory)
        try:
            if not key_of(manifest) == manifest["key"] == directory.name:
                raise Damaged(f"{MANIFEST} does not belong to key {directory.name}")
            state = _state(directory)
        except (OSError, TypeError) as error:      # it is being replaced, or holds what no manifest of ours does
            raise Damaged(f"it cannot be read: {error}") from None
        if self._verified.get(directory) == state:
            return manifest
        present = {path for path, _, _ in state} - {MANIFEST}
        if present != set(manifest["files"]):
            different = sorted(present ^ set(manifest["files"]))[0]
            raise Damaged(f"{different} is missing or was added")
        for name, entry in manifest["files"].items():
            if file_digest(directory / name) != entry["sha256"]:
                raise Damaged(f"{name} has other bytes than the manifest says")
        self._verified[directory] = state
        return manifest

    @contextmanager
    def new(self, directory: Path, parts: KeyParts) -> Iterator[Path]:
        """A scratch directory to fill. `commit` makes it the artifact; on an error it is removed."""
        with self._scratch(f"{parts.stage}-{parts.key}") as scratch:
            yield scratch

    def commit(self, scratch: Path, directory: Path, parts: KeyParts, metrics: dict[str, float]) -> Artifact:
        """Write the manifest last, then rename: the artifact is whole or it is not there. A metric that is not finite
        is null in it, since JSON has no such number."""
        files = {}
        for path in sorted(file for file in scratch.rglob("*") if file.is_file()):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            files[path.relative_to(scratch).as_posix()] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        numbers = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        manifest = {"stage": parts.stage, "key": parts.key, "config": parts.config, "inputs": parts.inputs,
                    "code": parts.code, "metrics": numbers, "files": files, "digest": _files_digest(files)}
        with (scratch / MANIFEST).open("w", encoding="utf-8") as out:
            json.dump(manifest, out, indent=1, ensure_ascii=False, allow_nan=False)
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())
        directory.parent.mkdir(parents=True, exist_ok=True)
        self.discard(directory)
        scratch.rename(directory)
        return self._artifact(directory, manifest)

    @contextmanager
    def fetching(self, directory: Path) -> Iterator[Path]:
        """A scratch directory of the artifact's name, to fetch a copy into; what is left of it is removed."""
        with self._scratch(f"fetched-{directory.name}") as folder:
            yield folder / directory.name

    def adopt(self, fetched: Path, directory: Path) -> Artifact | None:
        """Take a fetched copy as the artifact if its bytes are right; None otherwise. Call it under the key's lock."""
        try:
            self.verify(fetched)
        except Damaged as damage:
            logger.warning("the fetched copy of %s is damaged too (%s)", directory, damage)
            return None
        directory.parent.mkdir(parents=True, exist_ok=True)
        self.discard(directory)
        fetched.rename(directory)
        return self.find(directory)

    def discard(self, directory: Path) -> None:
        """Take a directory away at once: renamed first, so that nobody sees half of it. Call under the key's lock."""
        if directory.exists():
            with self._scratch(f"trash-{directory.name}") as trash:
                directory.rename(trash / directory.name)

    @contextmanager
    def _scratch(self, name: str) -> Iterator[Path]:
        """A folder of this process alone, gone at the end. The lock beside it proves that the process lives."""
        folder = self.workspace.scratch / f"{name}-{uuid4().hex[:12]}"
        with locks.held(folder.with_name(f"{folder.name}.lock"), ""):
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def remove_leftovers(self) -> None:
        """Delete the scratch of processes that are dead, and of nobody else, in whatever container or host they run."""
        locks.remove_unfinished(self.workspace.scratch)
        for path in sorted(self.workspace.scratch.glob("*.lock")):
            with locks.taken_over(path) as text:
                if text is not None:
                    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                    path.unlink(missing_ok=True)
        for folder in self.workspace.scratch.glob("*"):      # the lock is made first and removed last
            if folder.is_dir() and not folder.with_name(f"{folder.name}.lock").exists():
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """One process at a time for a key; the kernel releases it when the holder dies."""
        with locks.lock(self.workspace.hidden / "locks" / f"{stage}-{key}.lock", f"{stage} {key}"):
            yield

    def _artifact(self, directory: Path, manifest: dict[str, Any]) -> Artifact:
        return Artifact(stage=manifest["stage"], key=manifest["key"], digest=manifest["digest"],
                        path=directory.relative_to(self.workspace.root).as_posix())


_stores: dict[Workspace, Store] = {}


def _code_of(directory: Path) -> Any:
    try:
        return read_manifest(directory)["code"]
    except Damaged:
        return None


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest, with NaN for each metric that is null in it. Raises Damaged when it is missing or not one."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not set(manifest) >= FIELDS:
            raise ValueError("fields are missing")
        manifest["metrics"] = {name: math.nan if value is None else value
                               for name, value in manifest["metrics"].items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise Damaged(f"{MANIFEST} cannot be read: {error}") from None
    return manifest


def key_of(manifest: dict[str, Any]) -> str:
    """The key that the parts in a manifest give. Raises TypeError for what no manifest of ours holds."""
    return KeyParts(manifest["stage"], manifest["config"], manifest["inputs"], manifest["code"]).key


def file_digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error}") from None


def _files_digest(files: dict[str, dict[str, Any]]) -> str:
    lines = "".join(f"{name}\0{entry['sha256']}\n" for name, entry in sorted(files.items()) if name != CARD)
    return hashlib.sha256(lines.encode()).hexdigest()


def _state(directory: Path) -> tuple[tuple[str, int, int], ...]:
    """Path, size and modification time of every file: what tells a changed directory from a verified one."""
    entries = []
    for path in sorted(file for file in directory.rglob("*") if file.is_file()):
        status = path.stat()
        entries.append((path.relative_to(directory).as_posix(), status.st_size, status.st_mtime_ns))
    return tuple(entries)
