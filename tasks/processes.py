"""Which processes are alive, told apart from later ones with the same number."""

from typing import Any

import psutil


def process_identity(pid: int) -> dict[str, Any]:
    """What tells a process from a later one with the same number."""
    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def is_alive(identity: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(identity["pid"])
        return abs(process.create_time() - identity["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
