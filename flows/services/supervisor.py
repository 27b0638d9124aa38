"""The services that `genai up` keeps running: a Prefect server, an MLflow server, the served deployments, and where a
release is in service its model.

All listen on loopback and answer no page of another origin; the first two ask for the password of the workspace
(`password.py`), the model's server for GENAI_API_KEY where that is set. Each runs under a lifeline, so that none
outlives the supervisor, however it ends.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from flows.services.environment import services_file
from flows.services.health import answers, free_port
from flows.services.password import of_mlflow, of_prefect, password_of
from genai_core.errors import InputError
from tasks.execution.processes import process_identity
from tasks.store import locks
from tasks.store.workspace import REPOSITORY, Workspace

HOST = "127.0.0.1"
RESTART_SECONDS = 5.0
POLL_SECONDS = 0.2


@dataclass
class Service:
    """One service: how it is started, and where to ask whether it is well. An empty command is one that others run."""

    name: str
    page: str
    """What people open."""
    health: str
    command: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    needed: bool = True
    """Whether nothing is said to run before it does."""

    def is_healthy(self) -> bool:
        return answers(self.health)


def choose_services(workspace: Workspace, ports: dict[str, int]) -> tuple[list[Service], list[str]]:
    """The services on the wanted ports or on free ones, and what to tell the user about that.

    A configured PREFECT_API_URL or MLFLOW_TRACKING_URI is used in place of a server of our own. Raises InputError when
    it does not answer.
    """
    notes: list[str] = []

    def free(name: str) -> int:
        if _is_free(ports[name]):
            return ports[name]
        chosen = free_port()
        notes.append(f"port {ports[name]} is taken by another program: {name} takes {chosen}")
        return chosen

    auth = password_of(workspace)
    clients: dict[str, str] = {}
    prefect_api, mlflow = os.environ.get("PREFECT_API_URL", ""), os.environ.get("MLFLOW_TRACKING_URI", "")
    if prefect_api:
        notes.append(f"PREFECT_API_URL is set: using {prefect_api}")
        prefect = Service("Prefect", prefect_api.removesuffix("/api"), f"{prefect_api.rstrip('/')}/health")
        _require(prefect, "PREFECT_API_URL")
    else:
        address = f"http://{HOST}:{free('Prefect')}"
        prefect_api = f"{address}/api"
        prefect = Service("Prefect", address, f"{prefect_api}/health",
                          [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port",
                           address.rsplit(":", 1)[1], "--log-level", "WARNING"],
                          {"PREFECT_SERVER_UI_API_URL": prefect_api, "PREFECT_SERVER_API_AUTH_STRING": auth,
                           "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": f"{address},{_by_name(address)}",
                           "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING"})
        clients |= of_prefect(auth)
    if mlflow.startswith("http"):
        notes.append(f"MLFLOW_TRACKING_URI is set: using {mlflow}")
        tracker = Service("MLflow", _runs_page(mlflow), f"{mlflow.rstrip('/')}/health")
        _require(tracker, "MLFLOW_TRACKING_URI")
    else:
        address = f"http://{HOST}:{free('MLflow')}"
        tracker = Service("MLflow", _runs_page(address), f"{address}/health",
                          [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port",
                           address.rsplit(":", 1)[1], "--default-artifact-root",
                           (workspace.root / "mlartifacts").as_uri(), "--no-serve-artifacts", "--workers", "1",
                           "--app-name", "genai"],
                          {"MLFLOW_BACKEND_STORE_URI": workspace.tracking_uri,      # a database's holds a password
                           "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"})
        clients |= of_mlflow(auth)
        mlflow = address
    port = free("deployments")
    runner = Service("deployments", f"{prefect.page}/deployments", f"http://{HOST}:{port}/health",
                     [sys.executable, "-m", "flows.services.deployments"],
                     {"PREFECT_API_URL": prefect_api, "MLFLOW_TRACKING_URI": mlflow,
                      "GENAI_HEALTH_PORT": str(port), "PREFECT_RUNNER_POLL_FREQUENCY": "2", **clients})
    services = [prefect, tracker, runner]
    if not _has_champion(workspace):
        notes.append("no release is in service yet, so no model is served; `genai serve` does it after the first run")
        return services, notes
    port = free("serve")
    address = f"http://{HOST}:{port}"
    services.append(Service("serve", address, f"{address}/health",
                            [sys.executable, "-m", "flows.cli.command", "serve", "--port", str(port), "--grace", "15"],
                            {"MLFLOW_TRACKING_URI": mlflow, **clients}, needed=False))
    return services, notes


def _has_champion(workspace: Workspace) -> bool:
    """Whether a language model is in service."""
    database = workspace.root / "mlflow.db"
    if workspace.tracking_uri.startswith("sqlite:") and not (database.is_file() and database.stat().st_size):
        return False      # looking would make one
    from tasks.tracking import client as tracking

    try:
        return bool(tracking.client().get_model_version_by_alias("genai-quantize", "champion"))
    except tracking.outage():
        return False


def _by_name(address: str) -> str:
    """The same server as a browser may also be told it."""
    return address.replace(HOST, "localhost")


def _require(service: Service, variable: str) -> None:
    if not service.is_healthy():
        raise InputError(f"{variable}: nothing answers at {service.health}; start it, or unset the variable and "
                         "`genai up` starts one of its own")


def _runs_page(address: str) -> str:
    return f"{address.rstrip('/')}/#/experiments/1/runs?workflowType=machine_learning"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


class Supervisor:
    """Starts the services, starts again what dies, and stops all of them on SIGINT or SIGTERM."""

    def __init__(self, workspace: Workspace, services: list[Service]):
        self.workspace, self.services = workspace, services
        self.stopping = threading.Event()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._died: dict[str, float] = {}
        self._presence = ExitStack()
        self.logs = workspace.hidden / "logs"

    def start(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stopping.set())
        self._write_state()
        for service in self.services:
            self._launch(service)

    def look_after(self) -> None:
        """Start again what died, after a few seconds."""
        for service in self.services:
            process = self._processes.get(service.name)
            if process is None or process.poll() is None:
                continue
            died = self._died.setdefault(service.name, time.monotonic())
            if time.monotonic() - died > RESTART_SECONDS:
                print(f"{service.name} stopped (exit {process.returncode}): starting it again; its log is "
                      f"{self._log(service)}", flush=True)
                del self._died[service.name]
                self._launch(service)

    def wait(self) -> None:
        """Look after the services until a signal comes."""
        while not self.stopping.wait(POLL_SECONDS):
            self.look_after()

    def stop(self) -> None:
        """The deployments first, so that runs in progress can still tell the servers how they ended."""
        for service in reversed(self.services):
            process = self._processes.pop(service.name, None)
            if process:
                assert process.stdin
                process.stdin.close()
                process.wait()
        self._presence.close()

    def healthy(self) -> dict[str, bool]:
        return {service.name: service.is_healthy() for service in self.services}

    def _launch(self, service: Service) -> None:
        if not service.command:
            return
        own = {name: value for name, value in os.environ.items() if name != "GENAI_API_KEY" or service.name == "serve"}
        with self._log(service).open("ab") as log:
            self._processes[service.name] = subprocess.Popen(
                [sys.executable, "-m", "tasks.placement.lifeline", *service.command], stdin=subprocess.PIPE, stdout=log,
                stderr=log, env={**own, **service.environment}, cwd=REPOSITORY, start_new_session=True)

    def _log(self, service: Service) -> Path:
        return self.logs / f"{service.name.lower()}.log"

    def _write_state(self) -> None:
        prefect, tracker, runner, *_ = self.services
        state = {"supervisor": process_identity(os.getpid()), "prefect_api": runner.environment["PREFECT_API_URL"],
                 "mlflow": runner.environment["MLFLOW_TRACKING_URI"],
                 "own": [service.name for service in (prefect, tracker) if service.command],
                 "services": {service.name: {"page": service.page, "health": service.health}
                              for service in self.services}}
        self._presence.enter_context(locks.held(services_file(self.workspace), json.dumps(state, indent=1)))
