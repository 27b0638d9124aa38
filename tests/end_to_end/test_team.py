"""The team profile, by settings only: Prefect and MLflow on a real PostgreSQL, artifacts and data on a real S3."""

import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.end_to_end.conftest import STAGES, TASKS, Home
from tests.end_to_end.helpers import S3, address_of, api_of, free_port, mlflow_server, prefect_server

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

@pytest.fixture(scope="module")
def postgresql():
    """Connection string of a PostgreSQL server of this test alone, with `{}` for the database."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not installed:
        pytest.skip("needs PostgreSQL with its contrib extensions: make system-packages")
    folder = Path(tempfile.mkdtemp(prefix="genai-postgresql-"))      # not below pytest's folder, which is root's alone
    as_owner = {}
    if os.getuid() == 0:      # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres")
        as_owner = {"user": "postgres", "group": "postgres", "extra_groups": []}
    port, data = free_port(), folder / "data"

    def call(program, *arguments):
        subprocess.run([installed[-1] / program, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL,
                       **as_owner)

    call("initdb", "-D", str(data), "-U", "team", "-A", "trust")
    call("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o",
         f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}", "start")
    for database in ("prefect", "mlflow"):
        call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "team", database)
    yield f"postgresql://team@127.0.0.1:{port}/{{}}"
    call("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    server = S3(tmp_path_factory.mktemp("s3")).start()
    yield server
    server.kill()


def test_two_members_of_a_team_share_data_and_models(postgresql, s3, finished, tmp_path):
    bucket, credentials = s3.bucket, s3.credentials
    with ExitStack() as servers:
        prefect = prefect_server(tmp_path, PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql.format("prefect").replace(
            "postgresql://", "postgresql+asyncpg://"))
        servers.callback(prefect.kill)
        mlflow = mlflow_server(tmp_path, "--backend-store-uri", postgresql.format("mlflow"), "--artifacts-destination",
                               "s3://team/mlflow", **credentials)
        servers.callback(mlflow.kill)
        settings = {"PREFECT_API_URL": api_of(prefect), "MLFLOW_TRACKING_URI": address_of(mlflow),
                    "GENAI_DVC_REMOTE": "s3://team/dvc", **credentials}
        ann, bob = Home(tmp_path / "ann", settings), Home(tmp_path / "bob", settings)
        ann.root.mkdir()
        assert ann.run() == dict.fromkeys(TASKS, "Completed")
        assert ann.digests() == finished.digests()
        with psycopg.connect(postgresql.format("mlflow")) as connection, connection.cursor() as cursor:
            cursor.execute("select name from model_versions order by name")
            names = [name for (name,) in cursor.fetchall()]
            assert len(names) == 6 and "genai-release" in names      # five models, and the release that names them
        with psycopg.connect(postgresql.format("prefect")) as connection, connection.cursor() as cursor:
            cursor.execute("select name, state_name from flow_run")
            assert [state for _, state in cursor.fetchall()] == ["Completed"]
        assert any((bucket / "dvc").rglob("*")) and any((bucket / "mlflow").rglob("model.safetensors"))
        assert not (ann.root / "mlflow.db").exists() and not (ann.root / ".genai" / "dvc-remote").exists()

        # Bob has the same commit and the same settings; everything else comes from the shared services
        bob.root.mkdir()
        asked = ("compare", "genai-instruct/1", "genai-rlhf/1", "--json")
        assert bob.genai(*asked).stdout == ann.genai(*asked).stdout
        states = bob.run()
        fetched = {name for name, state in states.items() if state == "Fetched"}
        assert fetched == set(STAGES) - {"evaluate"} and states["evaluate"] == "Cached"      # compare has fetched that
        assert bob.digests() == finished.digests()
        assert (bob.root / "data.dvc").read_text() == (ann.root / "data.dvc").read_text()
        assert [row["version"] for row in bob.models()] == [1] * 5      # nobody registers what is there
        answer = bob.genai("chat", "--question", "Hi", "--tokens", "4").stdout
        assert answer == ann.genai("chat", "--question", "Hi", "--tokens", "4").stdout
        leaked = subprocess.run(["grep", "-rl", s3.secret, str(ann.root)], capture_output=True, text=True, check=False)
        assert leaked.stdout == ""
