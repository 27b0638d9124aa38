"""Locks that the kernel keeps: whoever holds one is alive, and whoever dies lets go of it.

The number of a process proves nothing: later ones get it again, and in another container or on another host it is a
stranger's. A `flock` is held by a living process or by nobody, whatever the process and its host are called, wherever
the file system is shared.
"""

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

logger = logging.getLogger("tasks")

QUIET_SECONDS = 2.0
"""Waits shorter than this are not worth a word."""
REMIND_SECONDS = 600.0
_PART = ".part"

holder: ContextVar[str] = ContextVar("holder", default="")
"""What holds the locks of this process, for others who wait for them: the run that is going on."""


class Held:
    """A file that this process holds locked."""

    def __init__(self, path: Path, stream: IO[str]):
        self.path, self._stream = path, stream
        self.left = False

    def leave(self, text: str) -> None:
        """Leave the file with this text when it is let go of, for whoever takes it over."""
        _write(self._stream, text)
        self.left = True


@contextmanager
def held(path: Path, text: str) -> Iterator[Held]:
    """A file with `text` that proves that this process lives: locked from the first moment in which it can be seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked_before_it_is_seen(path, text) as stream:
        held_file = Held(path, stream)
        try:
            yield held_file
        finally:
            if not held_file.left and _is_at(path, stream):
                path.unlink(missing_ok=True)


def _locked_before_it_is_seen(path: Path, text: str) -> IO[str]:
    while True:
        scratch = path.with_name(f"{path.name}.{uuid4().hex[:8]}{_PART}")
        stream = scratch.open("w+", encoding="utf-8")
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            _write(stream, text)
            scratch.replace(path)
            return stream
        except FileNotFoundError:      # it was taken for a dead process's before it was locked
            stream.close()
        except BaseException:
            stream.close()
            scratch.unlink(missing_ok=True)
            raise


def remove_unfinished(folder: Path) -> None:
    """Delete what processes left that died before the file that `held` makes had its name."""
    for path in folder.glob(f"*{_PART}"):
        if not is_held(path):
            path.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether the process that made the file lives. A file that is gone is nobody's."""
    try:
        with path.open() as stream:
            return not _try(stream, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


@contextmanager
def taken_over(path: Path) -> Iterator[str | None]:
    """The text of a file whose holder is dead, locked for this process; None while its holder or another heir lives."""
    try:
        stream = path.open("r+", encoding="utf-8")
    except FileNotFoundError:
        yield None
        return
    with stream:
        yield stream.read() if _try(stream, fcntl.LOCK_EX) and _is_at(path, stream) else None


@contextmanager
def lock(path: Path, what: str, shared: bool = False) -> Iterator[None]:
    """One process at a time, or all that share it. A wait is told, with who holds the lock, and can be interrupted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        _wait(stream, what, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        if not shared:
            _write(stream, json.dumps({"who": holder.get() or f"process {os.getpid()}", "host": socket.gethostname(),
                                       "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"}))
        yield


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """The lock for this process alone, and whether it was to be had; nothing is waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        yield _try(stream, fcntl.LOCK_EX)


def _wait(stream: IO[str], what: str, kind: int) -> None:
    began, told, pause = time.monotonic(), 0.0, 0.01
    while not _try(stream, kind):
        waited = time.monotonic() - began
        if waited > QUIET_SECONDS and (not told or time.monotonic() - told > REMIND_SECONDS):
            told = time.monotonic()
            logger.warning("waiting for %s: %s", what, _who(stream))
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def _who(stream: IO[str]) -> str:
    stream.seek(0)
    try:
        entry: dict[str, Any] = json.loads(stream.read())
        return f"{entry['who']} on {entry['host']} has it since {entry['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process has it"


def _try(stream: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, stream: IO[str]) -> bool:
    """Whether the open file is still the one of that name: another process may have removed or replaced it."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _write(stream: IO[str], text: str) -> None:
    stream.seek(0)
    stream.truncate()
    stream.write(text)
    stream.flush()
