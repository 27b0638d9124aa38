"""Rows of JSON that several programs add to: a row is there whole or not at all, and none is lost.

Writers hold a lock of the folder, so that a server and two terminals may write the same file.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genai_core.errors import InputError

Row = dict[str, Any]
_LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made where it is missing; only its owner may look into it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def append_rows(path: Path, rows: list[Row], largest: int = 2**30) -> None:
    """Append rows in one write, and sync, so that they are there after a crash.

    Raises OSError where there is no room, nothing being written then, and for a symbolic link; FileExistsError for a
    file of more than `largest` bytes.
    """
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    with locked(path.parent):
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            size = os.fstat(file).st_size
            if size > largest:
                raise FileExistsError
            if size and os.pread(file, 1, size - 1) != b"\n":      # somebody's editor left the last line open
                lines = b"\n" + lines
            try:
                if os.write(file, lines) < len(lines):
                    raise OSError(28, os.strerror(28))
                os.fsync(file)
            except OSError:
                os.ftruncate(file, size)      # half a line would spoil the next one
                raise
        finally:
            os.close(file)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file. Raises InputError, naming the line, for what is no row."""
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not a row of JSON; mend the line or move the file away")
        rows.append(row)
    return rows


def remove_last(path: Path, is_it: Callable[[Row], bool]) -> None:
    """Take the last row that fits out of a file: the new file takes the place of the old one at once."""
    with locked(path.parent):
        rows = read_rows(path)
        place = next((place for place in reversed(range(len(rows))) if is_it(rows[place])), None)
        if place is None:
            return
        scratch = path.with_suffix(".new")
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            for number, row in enumerate(rows):
                if number != place:
                    out.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            out.flush()
            os.fsync(out.fileno())
        scratch.replace(path)
