"""The environment of a run: set before Prefect is imported, since Prefect reads it then."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from flows.services.health import answers, bound_socket
from flows.services.notifications import wait_for_delivery
from flows.services.password import make_password, of_clients, of_prefect
from genai_core.errors import InputError
from tasks.store import locks
from tasks.store.artifacts import Store
from tasks.store.workspace import REPOSITORY, Workspace

START_SECONDS = 90.0


def configure(workspace: Workspace) -> None:
    """Point Prefect at the workspace, keep its console quiet, and switch telemetry off."""
    workspace.prefect.mkdir(parents=True, exist_ok=True)
    _close_to_others(workspace)
    os.environ.update({
        "GENAI_HOME": str(workspace.root),
        "PREFECT_HOME": str(workspace.prefect),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "genai_core,tasks",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    })
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "8")      # 2 + 4 + 8 + … seconds: over eight minutes
    # beside 429, 502 and 503: a proxy or a database that is away for a moment; no request of a run does harm twice
    os.environ.setdefault("PREFECT_CLIENT_RETRY_EXTRA_CODES", "408,500,504")
    os.environ.setdefault("PREFECT_SERVER_DATABASE_TIMEOUT", "60")      # several runs share one SQLite file
    if kernels := _kernels():
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(kernels))
    services = running_services(workspace)
    if services:
        os.environ.setdefault("PREFECT_API_URL", services["prefect_api"])
        os.environ.setdefault("MLFLOW_TRACKING_URI", services["mlflow"])
        for name, value in of_clients(workspace, services).items():
            os.environ.setdefault(name, value)


def _kernels() -> Path | None:
    """Where compiled kernels outlast /tmp, beside the downloads; None where nothing can be written there."""
    from genai_core.roots import cache_directory

    try:
        folder = cache_directory() / "kernels"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):      # the folder is another's, or nobody knows a home
        return None
    return folder if os.access(folder, os.W_OK) else None


def _close_to_others(workspace: Workspace) -> None:
    """Only the owner may read the databases; who could needs to ask no server. On a shared volume the owner decides."""
    with suppress(PermissionError):
        workspace.prefect.chmod(0o700)
        database = workspace.root / "mlflow.db"
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            database.touch(0o600)
        if database.exists():
            database.chmod(0o600)


def services_file(workspace: Workspace) -> Path:
    return workspace.hidden / "services.json"


def running_services(workspace: Workspace) -> dict[str, Any] | None:
    """Addresses of what `genai up` started in this workspace; None when it is not running."""
    try:
        state: dict[str, Any] = json.loads(services_file(workspace).read_text())
    except (OSError, ValueError):
        return None
    return state if locks.is_held(services_file(workspace)) else None


@contextmanager
def prefect_api() -> Iterator["Server | None"]:
    """The configured API (`PREFECT_API_URL`), or a server of this run's own that dies with it, whatever happens."""
    if os.environ.get("PREFECT_API_URL"):
        yield None
        return
    server = Server()
    try:
        yield server
    except Exception:
        with suppress(Exception):      # what went wrong before is what counts
            wait_for_delivery()
        raise
    finally:
        _send_remaining_logs()
        server.stop()


def _send_remaining_logs() -> None:
    """Prefect sends logs in batches from a thread; the last ones must leave before the server does."""
    if "prefect" in sys.modules:
        from prefect.logging.handlers import APILogWorker

        APILogWorker.drain_all(timeout=5)


class Server:
    """A Prefect server on a free loopback port, started without waiting; `wait` waits until it answers.

    Servers of one workspace start one after the other: two would both bring the new database up to date, and fail.
    """

    def __init__(self) -> None:
        self._turn = ExitStack()
        self._turn.enter_context(Store.of(Workspace.current()).lock("prefect", "server"))
        listener = bound_socket()
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        auth = make_password()      # other users of the machine, and pages in a browser, are not let in
        environment = {**os.environ, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1",
                       "PREFECT__SERVER_FINAL": "1", "PREFECT_SERVER_API_AUTH_STRING": auth,
                       "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": self.url.removesuffix("/api")}
        command = [sys.executable, "-m", "tasks.placement.lifeline", sys.executable, "-m", "uvicorn", "--factory",
                   "prefect.server.api.server:create_app", "--fd", str(listener.fileno()), "--log-level", "error",
                   "--lifespan", "on"]
        self.log = Workspace.current().prefect / "server.log"
        with listener, self.log.open("a") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment,
                                             cwd=REPOSITORY, start_new_session=True, pass_fds=[listener.fileno()])
        os.environ |= {"PREFECT_API_URL": self.url, **of_prefect(auth)}

    def wait(self) -> None:
        """Wait until the server answers. Raises InputError when it does not come up; its log says why."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if answers(f"{self.url}/health"):
                self._turn.close()
                return
            time.sleep(0.1)
        raise InputError(f"the Prefect server did not start; see {self.log}")

    def stop(self) -> None:
        self._turn.close()
        for name in ("PREFECT_API_URL", *of_prefect("")):
            os.environ.pop(name, None)
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
