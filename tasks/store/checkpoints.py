"""Checkpoints on the remote: a training whose machine is lost goes on elsewhere, found by its key.

A thread brings the newest checkpoint there while the training goes on. Its files come first; a small document with
their digests comes last and makes it whole. Sending takes at most a fifth of the time, and the newest two stay. None of
it can stop a training: what fails is warned of once, and the next checkpoint makes up for it.
"""

import logging
import os
import shutil
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from tasks.store import dvc
from tasks.store.artifacts import Damaged, Store, file_digest
from tasks.store.remote import Remote, RemoteRefuses, reason
from tasks.store.workspace import Workspace

logger = logging.getLogger("tasks")

LOOK_SECONDS = 1.0
SHARE = 0.2
"""Of the time that sending may take."""
LAST_SECONDS = 60.0
"""How long the end of an interrupted training waits for its last checkpoint to be there."""
KEPT = 2
FOLDER = "checkpoints"


def fetch_newer(workspace: Workspace, stage: str, key: str) -> str:
    """Bring the newest whole checkpoint of the remote here if none here is as new; its name, empty if none was brought.

    Call it under the key's lock. A remote that does not answer is warned of: the training begins with what is here.
    """
    here = workspace.checkpoints / stage / key
    newest = max((path.name for path in here.glob("step-*")), default="")
    try:
        remote = _shared_remote(workspace)
        names = _names(remote, stage, key) if remote else []
        for name in (name for name in sorted(names, reverse=True) if name > newest):
            if remote and _fetch(workspace, remote, stage, key, name):
                _sent(workspace, stage, key).parent.mkdir(parents=True, exist_ok=True)
                _sent(workspace, stage, key).touch()
                return name
    except RemoteRefuses as refusal:
        logger.warning("whether another host left a checkpoint is not known: %s", refusal)
    return ""


def discard(workspace: Workspace, stage: str, key: str) -> None:
    """Take the checkpoints of a finished training off the remote, where this workspace sent or took some."""
    mark = _sent(workspace, stage, key)
    if not mark.is_file():
        return
    try:
        if remote := _shared_remote(workspace):
            place = remote.place(FOLDER, stage, key)
            with suppress(FileNotFoundError):
                remote.ask(f"remove the checkpoints of {stage} {key}", partial(remote.fs.rm, place, recursive=True))
        mark.unlink()
    except RemoteRefuses as error:
        logger.warning("the checkpoints of %s %s stay on the remote: %s", stage, key, reason(error))


class Courier:
    """Sends the newest checkpoint of a training while it goes on, and the last one if it is interrupted."""

    def __init__(self, workspace: Workspace, stage: str, key: str):
        self._workspace, self._stage, self._key = workspace, stage, key
        self._here = workspace.checkpoints / stage / key
        self._last = max((path.name for path in self._here.glob("step-*")), default="")
        self._remote: Remote | None = None
        self._stop, self._failing, self._interrupted = threading.Event(), False, False
        self._thread = threading.Thread(target=self._loop, name="checkpoints", daemon=True)
        self._thread.start()

    def close(self, interrupted: bool) -> None:
        """End; an interrupted training leaves its last checkpoint, if that arrives in a minute. A finished one needs
        none, and what is being sent is given up."""
        self._interrupted = interrupted
        self._stop.set()
        self._thread.join(LAST_SECONDS if interrupted else LOOK_SECONDS)

    def _loop(self) -> None:
        wait = LOOK_SECONDS
        while not self._stop.wait(wait):
            began = time.monotonic()
            wait = LOOK_SECONDS
            if self._attempt():
                wait = max(LOOK_SECONDS, (time.monotonic() - began) * (1 / SHARE - 1))
        if self._interrupted:
            self._attempt()

    def _attempt(self) -> bool:
        """Send the newest checkpoint unless it is there; whether anything was sent or tried."""
        name = max((path.name for path in self._here.glob("step-*")), default="")
        if name <= self._last:
            return False
        try:
            self._remote = self._remote or _shared_remote(self._workspace)
            if self._remote:
                self._send(self._remote, name)
            self._last = name
        except FileNotFoundError:      # the training has passed it and taken it away meanwhile
            return True
        except Exception as error:      # whatever a remote's driver raises: the training must not end by it
            if not self._failing:
                logger.warning("checkpoints do not reach the remote (%s); the training goes on", reason(error))
            self._failing = True
        else:
            if self._failing:
                logger.warning("checkpoints reach the remote again")
            self._failing = False
        return True

    def _send(self, remote: Remote, name: str) -> None:
        parts = (FOLDER, self._stage, self._key)
        mark = _sent(self._workspace, self._stage, self._key)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        copy = self._workspace.scratch / f"checkpoint-{self._key}-{os.getpid()}"
        shutil.rmtree(copy, ignore_errors=True)
        try:
            # links, so that it stays while it is sent, although the training goes on and removes it
            shutil.copytree(self._here / name, copy, copy_function=os.link)
            digests = {file.name: file_digest(file) for file in sorted(copy.iterdir())}
            for file in digests:
                remote.put(copy / file, *parts, name, file, tries=1)
                if self._stop.is_set() and not self._interrupted:
                    return
            remote.write_json(digests, copy / "whole.json", *parts, f"{name}.json")
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        for old in sorted(_names(remote, self._stage, self._key))[:-KEPT]:
            _remove(remote, self._stage, self._key, old)


def _shared_remote(workspace: Workspace) -> Remote | None:
    """The remote, where it is one that another host can see: a folder of this machine would be lost with it."""
    if not dvc.has_remote(workspace):
        return None
    with dvc.remote(workspace) as remote:
        return remote if remote.shared else None


def _names(remote: Remote, stage: str, key: str) -> list[str]:
    """The checkpoints that are whole."""
    def listed() -> list[str]:
        folder = remote.place(FOLDER, stage, key)
        remote.fs.fs.invalidate_cache()
        return [Path(str(path)).name for path in remote.fs.ls(folder, detail=False)]

    try:
        found = remote.ask(f"list the checkpoints of {stage} {key}", listed, tries=3)
    except FileNotFoundError:
        return []
    return [name.removesuffix(".json") for name in found if name.startswith("step-") and name.endswith(".json")]


def _fetch(workspace: Workspace, remote: Remote, stage: str, key: str, name: str) -> bool:
    digests = remote.read_json(FOLDER, stage, key, f"{name}.json")
    target = workspace.checkpoints / stage / key / name
    with Store.of(workspace).fetching(target) as scratch:
        scratch.mkdir()
        try:
            for file, digest in (digests or {}).items():
                if Path(file).name != file:
                    raise Damaged(f"{file} leads out of the checkpoint")
                get = partial(remote.fs.get_file, remote.place(FOLDER, stage, key, name, file), str(scratch / file))
                remote.ask(f"fetch the checkpoint {name}", get)
                if file_digest(scratch / file) != digest:
                    raise Damaged(f"{file} has other bytes than were sent")
        except (Damaged, FileNotFoundError) as error:
            logger.warning("%s of %s %s on the remote is passed over: %s", name, stage, key, error)
            return False
        if digests:
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch.rename(target)
        return bool(digests)


def _remove(remote: Remote, stage: str, key: str, name: str) -> None:
    """The document first: from then on nobody takes the files for a checkpoint."""
    for path in (remote.place(FOLDER, stage, key, f"{name}.json"), remote.place(FOLDER, stage, key, name)):
        with suppress(FileNotFoundError):
            remote.ask(f"remove the checkpoint {name}", partial(remote.fs.rm, path, recursive=True), tries=3)


def _sent(workspace: Workspace, stage: str, key: str) -> Path:
    """Says that the remote may have checkpoints of this key."""
    return workspace.hidden / "sent" / f"{stage}-{key}"
