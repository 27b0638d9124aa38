"""Rows of JSON that several programs add to: a row is there whole or not at all, and none is lost.

Writers hold a lock of the folder, so that a server and two terminals may write the same file.
"""

import errno
import fcntl
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genai_core.errors import InputError

Row = dict[str, Any]
LARGEST_FILE = 2**30
"""Size in bytes above which nothing is added to a file: files of labels are read whole."""
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


def append_rows(path: Path, rows: list[Row]) -> None:
    """Append rows under the lock of their folder; see `append_locked`."""
    with locked(path.parent):
        append_locked(path, rows)


def append_locked(path: Path, rows: list[Row]) -> None:
    """Append rows in one write, and sync, so that they are there after a crash; the caller holds the lock.

    Raises OSError where there is no room, nothing being written then, for a symbolic link, and for a file of more than
    `LARGEST_FILE` bytes.
    """
    lines = b"".join(_line(row) for row in rows)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(file).st_size
        if size > LARGEST_FILE:
            raise OSError(errno.EFBIG, f"{path.name} is full; move it away", str(path))
        if size and os.pread(file, 1, size - 1) != b"\n":      # somebody's editor left the last line open
            lines = b"\n" + lines
        try:
            if os.write(file, lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)      # half a line would spoil the next one
            raise
    finally:
        os.close(file)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file. Raises InputError, naming the line, for what is no row."""
    return [row for _, row in _lines(path) if row is not None]


def remove_locked(path: Path, is_it: Callable[[Row], bool]) -> None:
    """Take the last row that fits out of a file: the new file takes the place of the old one at once. The caller holds
    the lock, under which it chose the row.

    All other lines stay as they are, byte for byte. Raises OSError where the file cannot be written, and for a symbolic
    link, as `append_locked` does.
    """
    lines = list(_lines(path))
    place = next((place for place in reversed(range(len(lines)))
                  if (row := lines[place][1]) is not None and is_it(row)), None)
    if place is None:
        return
    if path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    scratch = path.with_suffix(".new")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as out:
        out.writelines(line for number, (line, _) in enumerate(lines) if number != place)
        out.flush()
        os.fsync(out.fileno())
    scratch.replace(path)


def _line(row: Row) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:      # half of a surrogate pair, which JSON can hold as an escape and UTF-8 cannot
        return json.dumps(row).encode() + b"\n"


def _lines(path: Path) -> Iterator[tuple[bytes, Row | None]]:
    """Each line of a file, as it ends, with its row; None of an empty line."""
    if not path.is_file():
        return
    for number, line in enumerate(io.BytesIO(path.read_bytes()), start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            row = ()
        if not isinstance(row, dict | None):
            raise InputError(f"{path}, line {number}: not a row of JSON; mend the line or move the file away")
        yield line, row
