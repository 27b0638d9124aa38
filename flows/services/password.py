"""The password of the servers that `genai up` starts in a workspace: made once, and readable by its owner alone.

Its file holds one line, `genai:…`, which is what Prefect calls an auth string, and user and password of MLflow. It is
in no command line, which every user of the machine can read, and in no file that a run writes.
"""

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from genai_core.errors import InputError
from tasks.store.workspace import Workspace

USER = "genai"


def password_file(workspace: Workspace) -> Path:
    return workspace.hidden / "password"


def make_password() -> str:
    """A new auth string."""
    return f"{USER}:{secrets.token_urlsafe(32)}"


def password_of(workspace: Workspace) -> str:
    """The auth string of a workspace, made on first use. Raises InputError for a file that is somebody else's."""
    path = password_file(workspace)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{secrets.token_hex(4)}")
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(f"{make_password()}\n")
        with suppress(FileExistsError):      # two starters: the first one's counts, whole
            os.link(scratch, path)
        scratch.unlink()
    status = path.stat()
    if status.st_uid != os.getuid() or path.is_symlink():
        raise InputError(f"{path}: not a file of yours, so it is no secret; delete it, and `genai up` makes another")
    if status.st_mode & 0o077:
        path.chmod(0o600)
    return path.read_text(encoding="utf-8").strip()


def of_prefect(auth: str) -> dict[str, str]:
    """Environment of a client of a Prefect server with this auth string."""
    return {"PREFECT_API_AUTH_STRING": auth}


def of_mlflow(auth: str) -> dict[str, str]:
    """Environment of a client of an MLflow server with this auth string."""
    user, _, password = auth.partition(":")
    return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}


def of_clients(workspace: Workspace, services: Mapping[str, Any]) -> dict[str, str]:
    """Environment of clients of what `genai up` runs: never a password for a server that others run."""
    own = services.get("own", ())
    auth = password_of(workspace) if own else ""
    found: dict[str, str] = {}
    if "Prefect" in own and os.environ.get("PREFECT_API_URL") == services["prefect_api"]:
        found |= of_prefect(auth)
    if "MLflow" in own and os.environ.get("MLFLOW_TRACKING_URI") == services["mlflow"]:
        found |= of_mlflow(auth)
    return found
