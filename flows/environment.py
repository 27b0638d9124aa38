"""The environment of a run: set before Prefect is imported, since Prefect reads it then."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genai_core.errors import InputError
from tasks.workspace import REPOSITORY, Workspace

START_SECONDS = 90.0


def configure(workspace: Workspace) -> None:
    """Point Prefect at the workspace, keep its console quiet, and switch telemetry off."""
    workspace.prefect.mkdir(parents=True, exist_ok=True)
    os.environ.update({
        "GENAI_HOME": str(workspace.root),
        "PREFECT_HOME": str(workspace.prefect),
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(workspace.prefect / "storage"),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "genai_core,tasks",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    })
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    _remove_leftovers(workspace)


@contextmanager
def prefect_api() -> Iterator["Server | None"]:
    """The configured API (`PREFECT_API_URL`), or a server of this run's own that dies with it, whatever happens."""
    if os.environ.get("PREFECT_API_URL"):
        yield None
        return
    server = Server()
    try:
        yield server
    finally:
        _send_remaining_logs()
        server.stop()


def _send_remaining_logs() -> None:
    """Prefect sends logs in batches from a thread; the last ones must leave before the server does."""
    if "prefect" in sys.modules:
        from prefect.logging.handlers import APILogWorker

        APILogWorker.drain_all(timeout=5)


class Server:
    """A Prefect server on a free loopback port, started without waiting; `wait` waits until it answers."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api"
        environment = {**os.environ, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1",
                       "PREFECT__SERVER_FINAL": "1"}
        command = [sys.executable, "-m", "flows.lifeline", sys.executable, "-m", "uvicorn", "--factory",
                   "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(port),
                   "--log-level", "error", "--lifespan", "on"]
        self.log = Workspace.current().prefect / "server.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment,
                                             cwd=REPOSITORY, start_new_session=True)
        os.environ["PREFECT_API_URL"] = self.url

    def wait(self) -> None:
        """Raises InputError when the server does not come up; its log says why."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise InputError(f"the Prefect server did not start; see {self.log}")

    def stop(self) -> None:
        os.environ.pop("PREFECT_API_URL", None)
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def _remove_leftovers(workspace: Workspace) -> None:
    """Delete half-made artifacts of processes that are dead; the name of each ends in the process's id."""
    for path in workspace.scratch.glob("*"):
        owner = path.name.rsplit("-", 1)[-1]
        if not (owner.isdigit() and Path("/proc", owner).exists()):
            shutil.rmtree(path, ignore_errors=True)
