"""A newcomer's first run: a fresh clone, an empty workspace, a terminal; nothing odd on it, no secret left behind."""

import os
import pty
import re
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from genai_core.roots import cache_directory
from tasks.store.workspace import REPOSITORY
from tests.end_to_end.helpers import clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

CANARY = f"canary-{secrets.token_hex(8)}-"
SECRETS = {name: f"{CANARY}{name.lower()}" for name in (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD",
    "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING", "POSTGRES_PASSWORD")} | {
    "PIP_INDEX_URL": f"https://reader:{CANARY}index@127.0.0.1/simple"}
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


@dataclass
class FirstRun:
    folder: Path
    screen: str
    """Everything that the terminal was sent, without colours and movements."""
    exit_code: int
    without_password: dict[int, int]
    """For each loopback port on which the run listened, the status of a request of somebody else."""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    folder = tmp_path_factory.mktemp("first")
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
    (folder / "home").mkdir()
    environment = clean_environment(HOME=str(folder / "home"), GENAI_CACHE=str(cache_directory()),
                                    PYTHONPATH=str(clone), TERM="xterm", **SECRETS)
    environment.pop("XDG_CACHE_HOME", None)
    terminal, inside = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "flows.cli.command", "run", "--preset", "smoke"], cwd=clone,
                               env=environment, stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    sent, asked = b"", dict[int, int]()
    while block := _read(terminal):
        sent += block
        if b"collect" in sent and not asked:
            asked = _ask(psutil.Process(process.pid))
    return FirstRun(folder, CONTROL.sub("", sent.decode(errors="replace")), process.wait(), asked)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:      # Linux's way to say that the other end is closed
        return b""


def _ask(process: psutil.Process) -> dict[int, int]:
    ports = [connection.laddr.port for child in process.children(recursive=True)
             for connection in child.net_connections("inet") if connection.status == psutil.CONN_LISTEN]
    return {port: httpx.post(f"http://127.0.0.1:{port}/api/flow_runs/filter", json={}, timeout=20).status_code
            for port in ports}


def test_the_terminal_shows_the_stages_and_no_warning_of_anyone(first: FirstRun):
    assert first.exit_code == 0, first.screen[-3000:]
    lines = [line.strip() for line in re.split(r"[\r\n]+", first.screen) if line.strip()]
    odd = [line for line in lines if re.search(r"warn|deprecat|error|traceback|checking graph|/site-packages/", line,
                                               re.IGNORECASE)]
    assert not odd and "talk:    genai chat" in lines


def test_the_server_of_the_run_refuses_who_does_not_know_its_password(first: FirstRun):
    assert list(first.without_password.values()) == [401]


def test_no_secret_of_the_environment_is_in_any_file_that_the_run_left(first: FirstRun):
    """Parameters, logs, artifacts, records, `data.dvc`, the databases of Prefect and MLflow, caches: every byte."""
    files = [path for path in first.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {"mlflow.db", "prefect.db", "data.dvc", "manifest.json"} <= {path.name for path in files}
    told = [str(path.relative_to(first.folder)) for path in files if CANARY.encode() in path.read_bytes()]
    assert not told and CANARY not in first.screen


def test_nobody_else_may_read_the_databases(first: FirstRun):
    """They hold what runs were asked and answered; whoever may read them needs no server."""
    for name in (".genai/prefect", "mlflow.db"):      # what is below a closed folder is closed too
        assert not (first.folder / "clone" / name).stat().st_mode & 0o077, name
