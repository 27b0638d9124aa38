"""Which processes are alive, told apart from later ones with the same number."""

import socket
from typing import Any

import psutil


def process_identity(pid: int) -> dict[str, Any]:
    """What tells a process from a later one with the same number."""
    return {"pid": pid, "started": psutil.Process(pid).create_time(), "host": socket.gethostname()}


def is_alive(identity: dict[str, Any]) -> bool:
    """Whether the process still runs; one of another machine counts as alive, since nothing here can tell."""
    if identity["host"] != socket.gethostname():
        return True
    try:
        process = psutil.Process(identity["pid"])
        return abs(process.create_time() - identity["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
