"""A full disk, said in words: before a stage begins, and when it happens in mid-stage."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from genai_core.errors import InputError
from tasks.store.workspace import Workspace

LEAST_FREE_BYTES = 32 * 2**20
"""Less than this holds no stage of even the smallest preset."""


def require_space(workspace: Workspace, stage: str) -> None:
    """Raises InputError when there is hardly any room left, before the stage spends any time."""
    workspace.hidden.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(workspace.hidden).free < LEAST_FREE_BYTES:
        raise InputError(_message(workspace, stage))


@contextmanager
def clear_error_when_full(workspace: Workspace, stage: str) -> Iterator[None]:
    """Raises InputError in place of the many errors by which libraries say that the disk is full."""
    try:
        yield
    except InputError:      # it has its words, be it of a remote that is full
        raise
    except Exception as error:
        if not _is_full(error):
            raise
        raise InputError(_message(workspace, stage)) from error


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error) or "disk is full" in str(error)


def _message(workspace: Workspace, stage: str) -> str:
    free = shutil.disk_usage(workspace.hidden).free / 2**20
    return (f"{stage}: the disk of the workspace {workspace.root} is full ({free:.0f} MiB free); what was finished is "
            "intact: make room (`genai gc` lists what can go) and start the same run again")
