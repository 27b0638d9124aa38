"""deploy/ as it stands: the steps of the image without a container engine, the servers on a PostgreSQL with a password.
"""

import os
import re
import secrets
import shlex
import shutil
import site
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from tasks.store.workspace import REPOSITORY
from tests.end_to_end.helpers import Server, free_port

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

DEPLOY = REPOSITORY / "deploy"
PASSWORD = "p@ss/w:rd?#%41&x y'\"$"
"""Every character that a URL, a shell or a configuration file might take for its own."""


class Image:
    """Executes the steps of a Containerfile up to a stage in a folder that stands in for `/`.

    What pip would download is what the interpreter of the tests has by the same constraints: its packages are lent to
    the environment that the steps make, and pip checks that they are the wanted ones.
    """

    def __init__(self, root: Path, target: str):
        self.root = root
        self.environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
                            **{name: value for name, value in os.environ.items() if name.startswith("PIP_")}}
        self.directory = root
        self.steps = _steps((DEPLOY / "Containerfile").read_text(), target)

    def build(self) -> "Image":
        for word, rest in self.steps:
            getattr(self, f"_{word.lower()}", lambda rest: None)(self._inside(rest))
        return self

    def call(self, command: str) -> str:
        done = subprocess.run(["bash", "-c", command], cwd=self.directory, env=self.environment, capture_output=True,
                              text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def _inside(self, text: str) -> str:
        return re.sub(r"(?<![\w.])/(opt|srv)/", rf"{self.root}/\1/", text)

    def _run(self, command: str) -> None:
        self.call(command if os.getuid() == 0 else re.sub(r"&& chown \S+ \S+", "", command))
        for packages in (self.root / "opt" / "genai" / "lib").glob("python*/site-packages"):
            (packages / "lent.pth").write_text("\n".join(site.getsitepackages()))

    def _env(self, assignments: str) -> None:
        for assignment in shlex.split(assignments):
            name, _, value = assignment.partition("=")
            self.environment[name] = value.replace("$PATH", self.environment["PATH"])

    def _workdir(self, directory: str) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)

    def _copy(self, names: str) -> None:
        *sources, _ = names.split()
        listed = subprocess.run(["git", "ls-files", "--", *sources], cwd=REPOSITORY, capture_output=True, text=True,
                                check=True).stdout.split("\n")
        for name in filter(None, listed):
            target = self.directory / (name if sources == ["."] else Path(name).name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, target)


def _steps(text: str, target: str) -> list[tuple[str, str]]:
    """The steps of a stage after those of the stage that it starts from."""
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip() and not line.startswith("#")]
    stages: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "FROM":
            origin, _, name = rest.split()
            stages[name] = current = list(stages.get(origin, []))
        else:
            current.append((word, rest))
    return stages[target]


def test_the_steps_of_the_image_of_workers_make_a_working_command(tmp_path):
    image = Image(tmp_path, "workers").build()
    repository = tmp_path / "srv" / "genai-core"
    assert "Train your own language model" in image.call("genai --help")
    assert image.call("cd / && python -c 'import flows; print(flows.__path__[0])'").strip() == str(repository / "flows")
    assert "nothing is running" in image.call("genai status")
    assert (tmp_path / "srv" / "genai").is_dir()
    apps = "from importlib.metadata import entry_points; print(entry_points(group='mlflow.app').names)"
    assert "genai" in image.call(f'python -c "{apps}"')


def test_the_steps_of_the_image_of_servers_make_what_compose_starts(tmp_path):
    image = Image(tmp_path, "servers").build()
    constraints = dict(line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().split())
    names = ["mlflow", "prefect", "Flask-WTF", "psycopg", "boto3"]
    versions = f"from importlib.metadata import version; print(*map(version, {names}))"
    assert image.call(f'python -c "{versions}"').split() == [constraints[name] for name in names]
    assert "basic-auth" in image.call("mlflow server --help")
    assert Path(image.environment["MLFLOW_AUTH_CONFIG_PATH"]).is_file()


def test_nothing_is_installed_when_the_servers_start_and_every_image_has_a_version():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        assert "pip" not in str(service.get("command")), name
        assert service.get("build") or re.search(r":\d+\.\d+$", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert "PASSWORD}@" not in str(service), f"{name}: a password in a URL"


@pytest.fixture(scope="module")
def postgresql():
    """Port of a PostgreSQL that asks for the password, with the databases of databases.sql."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not installed:
        pytest.skip("needs PostgreSQL with its contrib extensions: make system-packages")
    folder, port = Path(tempfile.mkdtemp(prefix="genai-postgresql-")), free_port()
    as_owner = {}
    (folder / "password").write_text(PASSWORD)
    if os.getuid() == 0:      # PostgreSQL refuses to run as root
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres")
        as_owner = {"user": "postgres", "group": "postgres", "extra_groups": []}

    def call(program: str, *arguments: str, **more) -> None:
        subprocess.run([installed[-1] / program, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, "PGPASSWORD": PASSWORD}, **as_owner, **more)

    call("initdb", "-D", str(folder / "data"), "-U", "team", "-A", "scram-sha-256", "--pwfile",
         str(folder / "password"))
    call("pg_ctl", "-D", str(folder / "data"), "-w", "-l", str(folder / "log"), "-o",
         f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}", "start")
    address = ("-h", "127.0.0.1", "-p", str(port), "-U", "team")
    call("createdb", *address, "prefect")
    call("psql", *address, "-d", "prefect", "-q", input=(DEPLOY / "databases.sql").read_bytes())
    yield port
    call("pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "stop")
    shutil.rmtree(folder)


def started(name: str, postgresql: int, folder: Path, health: str) -> tuple[Server, str]:
    """A server as compose.yaml declares it, on ports of this machine; and its address."""
    given = {"POSTGRES_PASSWORD": PASSWORD, "PREFECT_AUTH": f"team:{PASSWORD}", "MLFLOW_ADMIN_PASSWORD": PASSWORD,
             "MLFLOW_SECRET_KEY": secrets.token_hex(32), "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    port = free_port()
    given |= {"MLFLOW_HOST": f"127.0.0.1:{port}"}
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"][name]

    def here(value: str) -> str:
        value = re.sub(r"\$\{(\w+)(?::\?|:-([^}]*))?\}", lambda match: given.get(match[1], match[2] or ""), value)
        return value.replace("@postgresql:5432", f"@127.0.0.1:{postgresql}")

    environment = {key: here(value) for key, value in service["environment"].items()}
    if "PREFECT_SERVER_DATABASE_HOST" in environment:
        environment |= {"PREFECT_SERVER_DATABASE_HOST": "127.0.0.1", "PREFECT_SERVER_DATABASE_PORT": str(postgresql)}
    rights = folder / "mlflow_auth.ini"
    rights.write_text(here((DEPLOY / "mlflow_auth.ini").read_text()))
    environment |= {"MLFLOW_AUTH_CONFIG_PATH": str(rights), "PREFECT_HOME": str(folder / "prefect")}
    command = [argument.replace("0.0.0.0", "127.0.0.1").replace("5000", str(port)).replace("4200", str(port))
               for argument in service["command"]]
    command += ["--workers", "1"] if name == "mlflow" else []
    address = f"http://127.0.0.1:{port}"
    server = Server([sys.executable, "-m", *command], f"{address}{health}", folder / f"{name}.log", environment)
    return server.start(), address


def statuses(method: str, address: str, *allowed: tuple[str, str], **more) -> list[int]:
    """What nobody, a guesser and those who are allowed are answered."""
    return [httpx.request(method, address, auth=auth, timeout=60, **more).status_code
            for auth in (None, ("admin", "guessed"), *allowed)]


def in_no_command_line() -> bool:
    running = psutil.process_iter(["cmdline"])      # None for one that has just ended
    return not [process for process in running if PASSWORD in " ".join(process.info["cmdline"] or [])]


def test_mlflow_of_compose_asks_for_a_password_that_may_hold_any_character(postgresql, tmp_path):
    server, address = started("mlflow", postgresql, tmp_path, "/health")
    try:
        asked = statuses("GET", f"{address}/api/2.0/mlflow/experiments/search?max_results=1", ("admin", PASSWORD))
        assert asked == [401, 401, 200] and in_no_command_line()
        assert PASSWORD not in server.log.read_text()
    finally:
        server.kill()


def test_prefect_of_compose_asks_for_a_password_that_may_hold_any_character(postgresql, tmp_path):
    server, address = started("prefect", postgresql, tmp_path, "/api/health")
    try:
        asked = statuses("POST", f"{address}/api/flow_runs/filter", ("team", PASSWORD), json={})
        assert asked == [401, 401, 200] and in_no_command_line()
        assert PASSWORD not in server.log.read_text()
    finally:
        server.kill()
