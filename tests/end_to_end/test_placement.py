"""A stage on another machine: a real worker of a real work pool, with a workspace of its own and nothing shared but
the servers and the object store."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial

import httpx
import psutil
import pytest

from tasks.store.workspace import REPOSITORY
from tests.end_to_end.conftest import Home, states
from tests.end_to_end.helpers import (
    S3,
    address_of,
    api_of,
    flow_runs_in,
    mlflow_server,
    prefect_server,
    processes_in,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

POOL = "genai-gpu"
PRETRAIN = ("run", "--preset", "smoke", "--until", "pretrain")
THERE = ("--set", f"runtime.placement={{pretrain: {POOL}}}")


@pytest.fixture(scope="module")
def s3(tmp_path_factory) -> Iterator[S3]:
    server = S3(tmp_path_factory.mktemp("object_store")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def machines(tmp_path_factory, s3) -> Iterator[tuple[Home, Home]]:
    """One that runs flows, and one with a worker; both bare."""
    folder = tmp_path_factory.mktemp("machines")
    with ExitStack() as servers:
        prefect = prefect_server(folder)
        servers.callback(prefect.kill)
        mlflow = mlflow_server(folder, "--backend-store-uri", f"sqlite:///{folder / 'server.db'}",
                               "--artifacts-destination", "s3://team/mlflow", **s3.credentials)
        servers.callback(mlflow.kill)
        settings = {"GENAI_DVC_REMOTE": "s3://team/dvc", "MLFLOW_TRACKING_URI": address_of(mlflow),
                    "PREFECT_API_URL": api_of(prefect), "GENAI_REPOSITORY": str(REPOSITORY),
                    "PREFECT_HOME": str(folder / "client"), **s3.credentials}
        pair = Home(folder / "flows", settings), Home(folder / "worker", settings)
        for home in pair:
            home.root.mkdir()
        in_pool = [sys.executable, "-m", "prefect", "--no-prompt"]
        environment = pair[0].environment
        subprocess.run([*in_pool, "work-pool", "create", POOL, "--type", "process", "--base-job-template",
                        "deploy/work-pool.json"], cwd=REPOSITORY, env=environment, check=True, capture_output=True)
        subprocess.run([*in_pool, "deploy", "--name", f"execute-stage/{POOL}"], cwd=REPOSITORY, env=environment,
                       check=True, capture_output=True)
        yield pair
        for home in pair:
            for process in processes_in(home.root):
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def start_worker(home: Home) -> subprocess.Popen:
    """A worker that heeds SIGINT, which tests that were started in the background of a shell ignore."""
    return subprocess.Popen([sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL], cwd=os.sep,
                            env=home.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))


@pytest.fixture
def worker(machines) -> Iterator[subprocess.Popen]:
    process = start_worker(machines[1])
    yield process
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:      # Prefect's own end of a worker is not what is tested here
        process.kill()
        process.wait()


def test_the_other_machine_trains_what_this_one_prepared_and_the_end_is_the_same(machines, worker, tmp_path):
    here, there = machines
    done = here.genai(*PRETRAIN, *THERE)
    assert states(done.stdout)["pretrain"] == "Fetched"
    assert re.search(r"^  pretrain: \d+ steps on cpu", done.stdout, re.MULTILINE), done.stdout      # what it says there
    assert {path.parent.parent.name for path in there.root.glob("*/*/*/manifest.json")} >= {"tokenize", "pretrain"}
    assert not list(there.root.glob("data/collect/*"))      # only what the stage reads
    alone = Home(tmp_path / "alone", {**here.more, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'alone.db'}",
                                      "GENAI_DVC_REMOTE": str(tmp_path / "remote")})
    alone.root.mkdir()
    alone.genai(*PRETRAIN)
    assert alone.digests() == here.digests()
    (model,) = here.models()
    assert model["stage"] == "pretrain" and str(model["version"]) == "1"      # registered there, and not again here
    assert states(here.genai(*PRETRAIN, *THERE).stdout)["pretrain"] == "Cached"


def test_a_flow_that_is_cancelled_cancels_the_other_machine(machines, worker):
    here, there = machines
    process = here.start(*PRETRAIN, *THERE, "--set", "pretrain.tokens=20000000")
    wait_for(lambda: there.checkpoints("pretrain"), 120)
    runs = flow_runs_in(there.root)
    assert runs
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0, output
    wait_for(lambda: not any(run.is_running() and run.status() != psutil.STATUS_ZOMBIE for run in runs), 90)
    asked = {"flow_runs": {"name": {"like_": "pretrain "}}, "sort": "START_TIME_DESC", "limit": 1}

    def state() -> str:
        (run,) = httpx.post(f"{here.more['PREFECT_API_URL']}/flow_runs/filter", json=asked).json()
        return run["state_type"]

    wait_for(lambda: state() == "CANCELLED", 60)


LONG = (*PRETRAIN, *THERE, "--set", "runtime.checkpoint_seconds=0.3", "--set", "runtime.silent_seconds=30")


def kill_everything_in(home: Home) -> None:
    for each in processes_in(home.root):
        with suppress(psutil.NoSuchProcess):
            each.kill()      # nobody is left who could tell Prefect


def test_a_machine_that_is_lost_is_given_up_and_another_one_goes_on(machines, s3, tmp_path):
    here, there = machines
    lost = Home(tmp_path / "lost", there.more)
    lost.root.mkdir()
    start_worker(lost)
    remote = s3.bucket / "dvc" / "genai" / "checkpoints" / "pretrain"
    before = set(remote.glob("*/step-*.json"))      # of the run that was cancelled
    process = here.start(*LONG, "--set", "pretrain.tokens=2000000")
    wait_for(lambda: set(remote.glob("*/step-*.json")) - before, 120)
    kill_everything_in(lost)
    other = start_worker(there)
    try:
        output, _ = process.communicate(timeout=500)
    finally:
        other.send_signal(signal.SIGINT)
        other.wait(timeout=60)
    assert process.returncode == 0, output
    (given_up,) = re.findall(r"the worker of genai-gpu is lost \(no sign of life for (\d+) s\): asking again", output)
    assert 30 <= int(given_up) < 60      # and once: the other one trained for longer than that, and lived
    (step,) = re.findall(r"continuing from the checkpoint at step (\d+)", output)
    assert int(step) > 0 and states(output)["pretrain"] == "Fetched"


def test_a_worker_ends_its_stage_when_whoever_asked_is_killed(machines, worker):
    here, there = machines
    before = set(there.checkpoints("pretrain"))
    process = here.start(*LONG, "--set", "pretrain.tokens=30000000")
    wait_for(lambda: set(there.checkpoints("pretrain")) - before, 120)
    runs = flow_runs_in(there.root)
    assert runs
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not any(run.is_running() and run.status() != psutil.STATUS_ZOMBIE for run in runs), 120)
    assert set(there.checkpoints("pretrain")) - before


def test_what_is_missing_is_said(machines):
    here, _ = machines
    answer = here.genai(*PRETRAIN, "--set", "runtime.placement={pretrain: nowhere}", "--force", "pretrain", fails=True)
    assert re.search("there is no deployment execute-stage/nowhere; declare it in prefect.yaml", answer.stdout +
                     answer.stderr)
    answer = here.genai(*PRETRAIN, "--set", "runtime.placement={pretran: nowhere}", fails=True)
    assert "runtime.placement: unknown stage 'pretran'" in answer.stderr
