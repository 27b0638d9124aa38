"""Which process a recorded number means, before it is sent a signal.

Whether a process lives is told by the lock it holds (`tasks/store/locks.py`), never by its number: in another container
or after a restart the number is a stranger's.
"""

import os
import select
import signal
import socket
from pathlib import Path
from typing import Any

from genai_core.errors import InputError


def process_identity(pid: int) -> dict[str, Any]:
    """What tells a process from every other: its number, in which namespace of which running kernel, and its start."""
    return {"pid": pid, "started": _started(pid), "host": socket.gethostname(), **_namespace()}


class Process:
    """A process that can be sent signals: once it is opened, its number cannot become another's.

    Raises InputError when it runs in another container or on another host; ProcessLookupError when it is gone.
    """

    def __init__(self, identity: dict[str, Any]):
        if {name: identity.get(name) for name in _namespace()} != _namespace():
            raise InputError(f"process {identity['pid']} runs in another container or on another host (called "
                             f"{identity['host']}), and only there can it be stopped: give the same command there")
        self._descriptor = os.pidfd_open(identity["pid"])
        if _started(identity["pid"]) != identity["started"]:
            self.close()
            raise ProcessLookupError(f"{identity['pid']} is another process now")

    def send(self, number: signal.Signals) -> None:
        signal.pidfd_send_signal(self._descriptor, number)

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        return bool(select.select([self._descriptor], [], [], seconds)[0])

    def close(self) -> None:
        os.close(self._descriptor)


def _started(pid: int) -> int:
    """Ticks of the kernel's clock at which the process began, which setting the date does not change."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        raise ProcessLookupError(f"there is no process {pid}") from None
    return int(fields.rpartition(")")[2].split()[19])      # the name, in brackets, may hold anything


def _namespace() -> dict[str, Any]:
    return {"boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "pid_namespace": Path("/proc/self/ns/pid").stat().st_ino}
