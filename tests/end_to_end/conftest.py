"""Whole flows as a user starts them: the `genai` command in a subprocess, with a workspace of its own.

What takes long to make is made once for all workers, and then only read or copied: `finished` and `diffusion`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from filelock import FileLock

from tasks.store.artifacts import Store
from tasks.store.workspace import Workspace
from tests.end_to_end.helpers import (
    PREFECT_TEMPLATE,
    Server,
    api_of,
    clean_environment,
    free_port,
    mlflow_server,
    prefect_server,
    processes_in,
    wait_for,
    with_prefect_database,
)


@dataclass
class Home:
    """A workspace and the command that runs in it."""

    root: Path
    more: dict[str, str] = field(default_factory=dict)
    """Environment variables beside those of the workspace."""

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(GENAI_HOME=str(self.root), **self.more)

    def command(self, *arguments: str) -> list[str]:
        if arguments[:1] in (("run",), ("up",), ("sweep",)) and "PREFECT_API_URL" not in self.more:
            with_prefect_database(Workspace(self.root).prefect)
        return [str(Path(sys.executable).with_name("genai")), *arguments]

    def genai(self, *arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.command(*arguments), env=self.environment, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=400, check=False)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """The command in the background, its output readable line by line."""
        return subprocess.Popen(self.command(*arguments), env=self.environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)

    def run(self, *settings: str, force: str | None = None, until: str | None = None) -> dict[str, str]:
        """Run the smoke preset; the state of each task."""
        arguments = ["run", "--preset", "smoke"]
        for setting in settings:
            arguments += ["--set", setting]
        arguments += ["--force", force] if force else []
        arguments += ["--until", until] if until else []
        return states(self.genai(*arguments).stdout)

    def models(self) -> list[dict]:
        return json.loads(self.genai("models", "--json").stdout)

    def artifacts(self, stage: str) -> list[Path]:
        return [path for kind in ("data", "models", "reports") for path in (self.root / kind).glob(f"{stage}/*")]

    def artifact(self, stage: str) -> Path:
        (path,) = self.artifacts(stage)
        return path

    def digests(self) -> dict[str, str]:
        """Digest of the one artifact of each stage, after a look at its bytes."""
        store = Store(Workspace(self.root))
        return {path.parent.name: store.verify(path)["digest"] for stage in STAGES for path in self.artifacts(stage)}

    def checkpoints(self, stage: str) -> list[Path]:
        return list((self.root / ".genai" / "checkpoints" / stage).glob("*/step-*"))


def states(output: str) -> dict[str, str]:
    return dict(re.findall(r"^  (\w+): (Completed|Cached|Fetched|Failed|Crashed) in", output, re.MULTILINE))


STAGES = ["collect", "clean", "tokenize", "pretrain", "instruct", "reward", "rlhf", "quantize", "evaluate", "promote"]
TASKS = ["collect", "clean", "tokenize", "version_data", "pretrain", "instruct", "reward", "rlhf", "quantize",
         "evaluate", "promote"]


@pytest.fixture(scope="session", autouse=True)
def prefect_template(shared: Path) -> None:
    """An empty database of Prefect, made once."""
    folder = shared / "prefect-template"
    with FileLock(shared / "prefect-template.lock"):
        if not (folder / "done").exists():
            command = [Path(sys.executable).with_name("prefect"), "server", "database", "upgrade", "-y"]
            subprocess.run(command, env=clean_environment(PREFECT_HOME=str(folder)), check=True,
                           stdout=subprocess.DEVNULL)
            (folder / "done").touch()
    os.environ[PREFECT_TEMPLATE] = str(folder / "prefect.db")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of one test run see."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def made_once(folder: Path, make: Callable[[Home], None]) -> Home:
    """The workspace in `folder`, made by the worker that comes first while the others wait; nobody may change it."""
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock")):
        if not done.exists():
            subprocess.run(["rm", "-rf", str(folder)], check=True)      # what a worker that failed has left
            folder.mkdir()
            make(Home(folder))
            done.touch()
    return Home(folder)


@pytest.fixture(scope="session")
def finished(shared: Path) -> Home:
    """A workspace in which the smoke preset ran once, for tests that only look; those that add take a copy."""
    def make(home: Home) -> None:
        assert home.run() == dict.fromkeys(TASKS, "Completed")

    return made_once(shared / "finished", make)


DIFFUSION_TASKS = ["collect", "digits", "version_data", "digit_classifier", "conditional_vae", "diffusion", "evaluate",
                   "promote"]


@pytest.fixture(scope="session")
def diffusion(shared: Path) -> Home:
    """A workspace in which the smoke preset of one family ran once, for tests that only look."""
    def make(home: Home) -> None:
        done = home.genai("run", "--family", "diffusion", "--preset", "smoke")
        assert states(done.stdout) == dict.fromkeys(DIFFUSION_TASKS, "Completed")

    return made_once(shared / "diffusion", make)


def copy_of(home: Home, root: Path, **more: str) -> Home:
    """A copy that may be changed, with more environment variables; MLflow's absolute paths stay with the first."""
    subprocess.run(["cp", "-a", str(home.root), str(root)], check=True)
    return Home(root, more)


@pytest.fixture
def copied(finished: Home, prefect: Server, tmp_path: Path) -> Home:
    """A copy of the finished workspace that a test may change.

    Its runs share one Prefect server, which saves each of them some seconds.
    """
    return copy_of(finished, tmp_path / "home", PREFECT_API_URL=api_of(prefect))


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server of its own process, for tests that share one."""
    server = prefect_server(tmp_path_factory.mktemp("prefect"))
    yield server
    server.kill()


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[Server]:
    server = mlflow_server(tmp_path)
    yield server
    server.kill()


def password_in(home: Home) -> tuple[str, str]:
    """User and password of the services of a workspace."""
    user, _, password = (home.root / ".genai" / "password").read_text().strip().partition(":")
    return user, password


FINAL = ("Completed", "Failed", "Crashed", "Cancelled", "Skipped", "Cached")


class Api:
    """The few calls of Prefect's API that its UI makes."""

    def __init__(self, address: str, auth: tuple[str, str] | None = None):
        self.address = address
        self.auth = auth

    def post(self, path: str, **body) -> httpx.Response:
        """As Prefect's own client does, ask again after a 503: two writers met in SQLite and this one was undone."""
        for attempt in range(6):
            answer = httpx.post(f"{self.address}{path}", json=body, auth=self.auth, timeout=30)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(2 ** attempt / 4)
        return answer

    def deployment(self, name: str) -> dict:
        (found,) = [entry for entry in self.post("/deployments/filter").json() if entry["name"] == name]
        return found

    def trigger(self, name: str, **parameters) -> str:
        answer = self.post(f"/deployments/{self.deployment(name)['id']}/create_flow_run", parameters=parameters)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def flow_run(self, flow_run: str) -> dict:
        return httpx.get(f"{self.address}/flow_runs/{flow_run}", auth=self.auth, timeout=30).json()

    def state(self, flow_run: str) -> dict:
        return self.flow_run(flow_run)["state"]

    def wait(self, flow_run: str, seconds: float = 180) -> str:
        wait_for(lambda: self.state(flow_run)["name"] in FINAL, seconds)
        return self.state(flow_run)["name"]

    def cancel(self, flow_run: str) -> None:
        self.post(f"/flow_runs/{flow_run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})

    def logs(self, flow_run: str) -> str:
        entries = self.post("/logs/filter", logs={"flow_run_id": {"any_": [flow_run]}}, sort="TIMESTAMP_ASC").json()
        return "\n".join(entry["message"] for entry in entries)


@pytest.fixture(scope="session")
def up(finished, tmp_path_factory):
    """A copy of the finished workspace with everything running in it."""
    home = copy_of(finished, tmp_path_factory.mktemp("up") / "home")
    ports = ["--prefect-port", str(free_port()), "--mlflow-port", str(free_port()), "--deployments-port",
             str(free_port()), "--serve-port", str(free_port())]
    output = home.genai("up", "--detach", *ports).stdout
    assert "healthy after" in output and output.count("healthy  ") == 4
    yield home
    assert home.genai("down").stdout.strip() == "stopped"
    wait_for(lambda: not processes_in(home.root), 30)


@pytest.fixture(scope="session")
def api(up):
    return Api(json.loads((up.root / ".genai" / "services.json").read_text())["prefect_api"], password_in(up))


@pytest.fixture
def page(up: Home, api: Api):
    """A page of somebody who has logged in to both servers."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("needs Chromium: make system-packages")
    user, password = password_in(up)
    mlflow = json.loads((up.root / ".genai" / "services.json").read_text())["mlflow"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000},
                                http_credentials={"username": user, "password": password, "origin": mlflow})
        page.set_default_timeout(60_000)
        page.goto(api.address.removesuffix("/api"))
        page.locator("input[type=password]").fill(f"{user}:{password}")
        page.keyboard.press("Enter")
        page.wait_for_url("**/dashboard**")
        yield page
        browser.close()
