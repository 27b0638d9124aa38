"""What end-to-end tests share: waiting, free ports, the processes of a workspace, and real servers."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"it did not happen within {seconds} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def processes_in(root: Path) -> list[psutil.Process]:
    """Every process that runs in a workspace."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("GENAI_HOME") == str(root) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def flow_runs_in(root: Path) -> list[psutil.Process]:
    """The processes of a workspace that Prefect started for a flow run, and their children."""
    return [process for process in processes_in(root) if is_of_a_flow_run(process)]


def is_of_a_flow_run(process: psutil.Process) -> bool:
    try:
        return "PREFECT__FLOW_RUN_ID" in process.environ()
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return False


PREFECT_TEMPLATE = "GENAI_TESTS_PREFECT_TEMPLATE"
"""Environment variable with the path of an empty database of Prefect."""


def with_prefect_database(home: Path) -> None:
    """Give Prefect's home an empty database with all tables: making them takes some seconds of each new workspace.
    (`test_first_run.py` does without.)"""
    template = os.environ.get(PREFECT_TEMPLATE)
    if template and not (home / "prefect.db").exists():
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(template, home / "prefect.db")


def clean_environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("PREFECT_", "MLFLOW_", "GENAI_HOME", "GENAI_DATA_ROOTS"))}
    return {**kept, "COLUMNS": "200", **more}


@dataclass
class Server:
    """A real server process that a test can kill and start again."""

    command: list[str]
    health: str
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> "Server":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=clean_environment(**self.environment), stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        wait_for(lambda: answers(self.health), 90)
        return self

    def kill(self) -> None:
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def prefect_server(folder: Path, **environment: str) -> Server:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    if "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in environment:
        with_prefect_database(folder / "prefect")
    return Server([sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
                  f"{api}/health", folder / "prefect.log",
                  {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_UI_API_URL": api,
                   "PREFECT_SERVER_ANALYTICS_ENABLED": "false", **environment}).start()


def mlflow_server(folder: Path, *arguments: str, **environment: str) -> Server:
    port = free_port()
    storage = arguments or ("--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination",
                            str(folder / "artifacts"))
    return Server([sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers",
                   "1", *storage], f"http://127.0.0.1:{port}/health", folder / "mlflow.log",
                  {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", **environment}
                  ).start()


@dataclass
class S3:
    """A real S3 server with the bucket `team`, which a test can kill and start again."""

    folder: Path
    key: str = "team"
    secret: str = "team-secret"
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def bucket(self) -> Path:
        return self.folder / "team"

    @property
    def credentials(self) -> dict[str, str]:
        """Environment for its clients."""
        address = f"http://127.0.0.1:{self.port}"
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret, "AWS_ENDPOINT_URL": address,
                "MLFLOW_S3_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}

    def start(self) -> "S3":
        self.bucket.mkdir(parents=True, exist_ok=True)
        rclone = Path(sys.executable).with_name("rclone")
        with self.folder.with_name(f"{self.folder.name}.log").open("ab") as log:
            self.process = subprocess.Popen([rclone, "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--auth-key",
                                             f"{self.key},{self.secret}", str(self.folder)], stdout=log, stderr=log,
                                            start_new_session=True)

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(listens, 30)
        return self

    def kill(self) -> None:
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def api_of(prefect: Server) -> str:
    return prefect.health.removesuffix("/health")


def address_of(mlflow: Server) -> str:
    return mlflow.health.removesuffix("/health")
