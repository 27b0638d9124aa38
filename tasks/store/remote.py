"""The remote that hosts share: DVC's, through DVC's own file systems, so that any remote of DVC will do.

Beside DVC's objects (`files/md5`) it holds the folder `genai/`: what has been published under which key, and
checkpoints of trainings that go on. Every call is repeated with growing pauses and a limit; what stays refused is one
line.
"""

import errno
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from funcy import retry

from genai_core.errors import InputError
from tasks.store.workspace import Workspace

logger = logging.getLogger("tasks")

TRIES = 6
"""Pauses of 1 + 2 + 4 + 8 + 16 seconds lie between them."""
FOLDER = "genai"
FULL = (errno.ENOSPC, errno.EDQUOT)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")

Answer = TypeVar("Answer")


class RemoteRefuses(InputError):
    """The remote does not do what it is asked, and asking again has not helped or cannot help."""


@dataclass(frozen=True)
class Remote:
    """The default remote of a workspace."""

    url: str
    """As it was given, credentials included: not for printing."""
    fs: Any
    path: str
    """Its root, as its file system names it."""
    objects: Any
    """DVC's database of objects in it."""
    shared: bool
    """Whether other hosts can be expected to see it: the environment named it, or it is no folder of this machine."""
    identity: str
    """What tells it from other remotes; a folder of the workspace stays the same one when the workspace moves."""

    @property
    def told(self) -> str:
        """Its address for people: without user and password."""
        return without_credentials(self.url)

    def place(self, *parts: str) -> str:
        return str(self.fs.join(self.path, FOLDER, *parts))

    def ask(self, what: str, call: Callable[[], Answer], tries: int | None = None) -> Answer:
        """What `call` gives, repeated while the remote fails. Raises RemoteRefuses with `what` was to be done."""
        count, began = tries or TRIES, time.monotonic()

        def attempt() -> Answer:
            try:
                return call()
            except Exception as error:
                if not _lasting(error):
                    logger.info("%s: %s does not do it (%s)", what, self.told, reason(error))
                raise

        try:
            return retry(count, errors=Exception, timeout=lambda number: 2 ** number,
                         filter_errors=lambda error: not _lasting(error))(attempt)()
        except FileNotFoundError:
            raise
        except Exception as error:
            waited = "" if _lasting(error) else f" after {count} tries in {time.monotonic() - began:.0f} s"
            raise RemoteRefuses(f"{what}: the remote {self.told} {_verdict(error)}{waited} ({reason(error)}); what was "
                                "made is intact, and the same command goes on from there") from error

    def has(self, path: str) -> bool:
        """Whether there is a file. Raises whatever the file system does when it cannot say."""
        try:
            self.fs.info(path)
        except FileNotFoundError:
            return False
        return True

    def read_json(self, *parts: str, tries: int | None = None) -> Any:
        """A small document of the remote; None where there is none."""
        try:
            text = self.ask("read " + "/".join(parts), lambda: self.fs.cat_file(self.place(*parts)), tries)
        except FileNotFoundError:
            return None
        try:
            return json.loads(text)
        except ValueError as error:
            logger.warning("%s in %s cannot be read (%s): taken for missing", "/".join(parts), self.told, error)
            return None

    def write_json(self, document: Any, scratch: Path, *parts: str) -> None:
        """Write a small document at once, so that a reader has the whole of it or none."""
        scratch.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        try:
            self.put(scratch, *parts)
        finally:
            scratch.unlink(missing_ok=True)

    def put(self, file: Path, *parts: str, tries: int | None = None) -> None:
        def send() -> None:
            self.fs.makedirs(self.place(*parts[:-1]), exist_ok=True)
            self.fs.put_file(str(file), self.place(*parts))

        try:
            self.ask(f"write {'/'.join(parts)}", send, tries)
        except FileNotFoundError as error:
            raise self.missing(f"write {'/'.join(parts)}", error) from error

    def missing(self, what: str, error: Exception) -> RemoteRefuses:
        """For a write that finds no place: a bucket or a server's folder that there is not."""
        return RemoteRefuses(f"{what}: the remote {self.told} is not there ({reason(error)}); what was made is intact, "
                             "and the same command goes on from there")


def remote_of(workspace: Workspace, repository: Any) -> Remote:
    """The default remote of an opened DVC repository. Raises RemoteRefuses when DVC cannot use it."""
    from dvc.exceptions import DvcException

    given = os.environ.get("GENAI_DVC_REMOTE", "")
    url = str(repository.config["remote"][repository.config["core"]["remote"]]["url"])
    try:
        found = repository.cloud.get_remote()
        inside = Path(url).is_relative_to(workspace.root)
        identity = Path(url).relative_to(workspace.root).as_posix() if inside else without_credentials(url)
        return Remote(url, found.fs, found.path, found.odb, bool(given) or "://" in url,
                      hashlib.sha256(identity.encode()).hexdigest()[:16])
    except (DvcException, ImportError, OSError, ValueError) as error:
        raise RemoteRefuses(f"the remote {without_credentials(url)} cannot be used ({reason(error)})") from error


def without_credentials(text: str) -> str:
    return _CREDENTIALS.sub("", text)


def reason(error: BaseException) -> str:
    """Why, in one line that holds no credentials."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return without_credentials(line)[:300]


def _verdict(error: BaseException) -> str:
    if isinstance(error, PermissionError):
        return "refuses"
    return "is full" if _full(error) else "does not answer as it should"


def _full(error: BaseException) -> bool:
    words = str(error)
    return (isinstance(error, OSError) and error.errno in FULL) or any(
        word in words for word in ("QuotaExceeded", "Quota exceeded", "StorageFull", "InsufficientStorage",
                                   "Insufficient Storage", "No space left", "no space left"))


def _lasting(error: BaseException) -> bool:
    """Whether asking again cannot help: no right, no such place, no room, no driver, not a remote at all."""
    lasting = (PermissionError, FileNotFoundError, NotADirectoryError, ImportError, InputError)
    return isinstance(error, lasting) or _full(error) or type(error).__name__ in ("ConfigError", "AuthError",
                                                                                  "NoCredentialsError",
                                                                                  "PartialCredentialsError")
