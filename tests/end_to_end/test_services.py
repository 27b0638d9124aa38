"""`genai up`: its services, runs triggered through the API as the UI does it, cancelled, scheduled, and stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.catalog import FAMILIES
from tasks.store.workspace import REPOSITORY
from tests.end_to_end.conftest import Api, Home, copy_of
from tests.end_to_end.helpers import (
    answers,
    api_of,
    flow_runs_in,
    free_port,
    prefect_server,
    processes_in,
    wait_for,
)

pytestmark = pytest.mark.slow

CANCELS = 9      # and one of a worker: ten in all

def training_run(api: Api, home: Home, seed: int, name: str = "laptop") -> str:
    """Trigger a training that lasts a minute, and wait until it has trained for a while."""
    flow_run = api.trigger(name, preset="smoke", until="pretrain",
                           fields={"pretrain": {"seed": seed, "tokens": 3_000_000},
                                   "runtime": {"checkpoint_seconds": 600}})
    wait_for(lambda: "steps on" in api.logs(flow_run), 90)
    time.sleep(4)
    return flow_run


def test_status_tells_of_healthy_services_and_up_does_not_start_them_twice(up):
    status = json.loads(up.genai("status", "--json").stdout)
    assert status["running"] and set(status["services"]) == {"Prefect", "MLflow", "deployments", "serve"}
    assert all(service["healthy"] for service in status["services"].values())
    assert "already running" in up.genai("up").stdout


def test_the_deployments_are_there_and_the_schedule_is_off(api):
    names = {entry["name"] for entry in api.post("/deployments/filter").json()}
    assert names == {"laptop", "nightly", "on-demand", "sweep", *FAMILIES}
    (schedule,) = api.deployment("nightly")["schedules"]
    assert schedule["active"] is False and schedule["schedule"]["cron"] == "0 3 * * *"


def test_the_form_has_every_field_with_bounds_and_descriptions_and_refuses_a_bad_value(api):
    schema = api.deployment("laptop")["parameter_openapi_schema"]
    assert schema["properties"]["preset"]["enum"] == [
        "arithmetic", "cluster", "finetune", "gpu", "laptop", "smoke", "speedrun"]
    assert set(schema["definitions"]["Fields"]["properties"]) == {
        "base", "collect", "clean", "tokenize", "pretrain", "instruct", "reward", "rlhf", "quantize", "evaluate",
        "runtime"}
    tokens = schema["definitions"]["PretrainFields"]["properties"]["tokens"]
    assert tokens["minimum"] == 1024
    assert tokens["description"] == "Number of tokens to train on. Preset laptop: 3600000."
    path = f"/deployments/{api.deployment('laptop')['id']}/create_flow_run"
    for parameters, field in (({"fields": {"pretrain": {"tokens": -1}}}, "fields.pretrain.tokens"),
                              ({"preset": "huge"}, "preset"), ({"depth": 65}, "depth"),
                              ({"fields": {"rlhf": {"clip_ratio": 2}}}, "fields.rlhf.clip_ratio")):
        answer = api.post(path, parameters=parameters)
        assert answer.status_code == 409 and f"field '{field}'" in answer.text


def test_a_triggered_run_shows_its_log_its_artifacts_and_its_curves(api, up):
    flow_run = api.trigger("laptop", preset="smoke", fields={"instruct": {"epochs": 0.5}})
    assert api.wait(flow_run) == "Completed"
    # what the core says; the last lines may come after the state
    wait_for(lambda: "instruct: " in (log := api.logs(flow_run)) and "promote: passed: int8-size" in log, 30)
    listed = api.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [flow_run]}}).json()
    artifacts = {entry["key"]: entry for entry in listed}
    assert {"stages", "run-report", "model-card-instruct"} <= set(artifacts)
    assert "/#/models/genai-instruct/versions/2" in artifacts["stages"]["data"]
    assert "data:image/png;base64," in artifacts["run-report"]["data"]
    task_runs = api.post("/task_runs/filter", task_runs={}, flow_runs={"id": {"any_": [flow_run]}}).json()
    by_name = {entry["name"].rsplit("-", 1)[0]: entry["state_name"] for entry in task_runs}
    assert by_name["pretrain"] == "Cached" and by_name["instruct"] == "Completed"


def test_the_nightly_run_is_skipped_while_no_data_changed(api):
    flow_run = api.trigger("nightly", preset="smoke")
    assert api.wait(flow_run) == "Skipped"
    assert "was made from the same data" in api.state(flow_run)["message"]


def test_preparing_data_trains_nothing(api):
    flow_run = api.trigger("on-demand", preset="smoke")
    assert api.wait(flow_run) == "Completed"
    task_runs = api.post("/task_runs/filter", flow_runs={"id": {"any_": [flow_run]}}).json()
    assert {entry["name"].rsplit("-", 1)[0] for entry in task_runs} == {"collect", "clean", "tokenize", "version_data"}


def cancel(api: Api, home: Home, seed: int) -> None:
    """Cancel a training of a served deployment: what it leaves is a checkpoint and its last words, and no child."""
    wait_for(lambda: not flow_runs_in(home.root), 60)      # what ran before is gone
    services = len(processes_in(home.root))
    flow_run = training_run(api, home, seed)
    assert flow_runs_in(home.root)
    api.cancel(flow_run)
    began = time.monotonic()
    wait_for(lambda: len(processes_in(home.root)) <= services, 20)
    assert time.monotonic() - began < 20
    wait_for(lambda: api.state(flow_run)["name"] == "Cancelled", 30)
    assert "SIGTERM: saved a checkpoint at step" in api.logs(flow_run)
    (checkpoint,) = home.checkpoints("pretrain")[-1:]
    assert (checkpoint / "state.json").is_file()


def test_a_cancelled_training_saves_a_checkpoint_and_leaves_no_child(api, up):
    cancel(api, up, 99)


@pytest.mark.heavy
def test_a_cancelled_training_saves_a_checkpoint_leaves_no_child_and_continues(api, up):
    for seed in range(CANCELS):
        cancel(api, up, 100 + seed)
    # the next run of the same continues
    again = api.trigger("laptop", preset="smoke", until="pretrain",
                        fields={"pretrain": {"seed": 100, "tokens": 3_000_000}})
    assert api.wait(again) == "Completed"
    assert "continuing from the checkpoint at step" in api.logs(again)


def test_services_that_die_are_started_again(api, up):
    state = json.loads((up.root / ".genai" / "services.json").read_text())
    health = state["services"]["MLflow"]["health"]
    victims = [process for process in processes_in(up.root) if "tracking_server" in " ".join(process.cmdline())]
    assert victims
    for process in victims:
        if process.is_running():
            process.kill()
    wait_for(lambda: not answers(health), 10)
    wait_for(lambda: answers(health), 60)


def test_ctrl_c_stops_everything_cleanly(tmp_path):
    home = Home(tmp_path)
    with socket.socket() as taken:      # a port that somebody else has: said, and another one taken
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = home.start("up", "--prefect-port", str(port), "--mlflow-port", str(free_port()),
                             "--deployments-port", str(free_port()))
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "healthy after" in line:
                break
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    output = "".join(lines)
    assert f"port {port} is taken by another program: Prefect takes" in output
    assert "no release is in service yet, so no model is served" in output
    assert process.returncode == 0 and "stopping" in rest and "Traceback" not in output + rest
    wait_for(lambda: not processes_in(home.root), 30)
    assert "nothing is running" in home.genai("status").stdout


def test_a_configured_server_that_does_not_answer_is_explained(tmp_path):
    home = Home(tmp_path, {"PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"})
    done = home.genai("up", fails=True)
    assert "PREFECT_API_URL: nothing answers at" in done.stderr and "Traceback" not in done.stderr


def test_a_killed_supervisor_takes_its_services_along(tmp_path):
    home = Home(tmp_path)
    home.genai("up", "--detach", "--prefect-port", str(free_port()), "--mlflow-port", str(free_port()),
               "--deployments-port", str(free_port()))
    state = json.loads((home.root / ".genai" / "services.json").read_text())
    os.kill(state["supervisor"]["pid"], signal.SIGKILL)
    wait_for(lambda: not processes_in(home.root), 60)
    assert "nothing is running" in home.genai("status").stdout


@pytest.fixture
def bare_prefect(tmp_path):
    """A Prefect server that knows no pool and no deployment yet, unlike the one that the tests of a worker share."""
    server = prefect_server(tmp_path)
    yield server
    server.kill()


@pytest.mark.heavy
def test_deploy_all_and_a_process_worker_run_and_cancel(finished, bare_prefect, tmp_path):
    """`prefect.yaml` as it stands: pools, deployments, a worker; a cancelled run leaves a checkpoint and no child."""
    api = Api(api_of(bare_prefect))
    copied = copy_of(finished, tmp_path / "home", PREFECT_API_URL=api.address)
    environment = {**copied.environment, "GENAI_REPOSITORY": str(REPOSITORY), "MLFLOW_TRACKING_URI": ""}

    def prefect_command(*arguments: str) -> None:
        done = subprocess.run([Path(sys.executable).with_name("prefect"), "--no-prompt", *arguments], cwd=REPOSITORY,
                              env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    for pool in ("genai", "genai-gpu"):
        prefect_command("work-pool", "create", pool, "--type", "process")
    prefect_command("deploy", "--all")
    assert {entry["name"] for entry in api.post("/deployments/filter").json()} == {
        "laptop", "nightly", "gpu", "genai-gpu", "on-demand", "sweep", *FAMILIES}
    gpu = api.deployment("gpu")
    assert gpu["work_pool_name"] == "genai-gpu" and gpu["global_concurrency_limit"]["limit"] == 1
    with (copied.root / "worker.log").open("wb") as log:
        worker = subprocess.Popen([Path(sys.executable).with_name("prefect"), "worker", "start", "--pool", "genai"],
                                  cwd=REPOSITORY, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        flow_run = api.trigger("laptop", preset="smoke")
        assert api.wait(flow_run) == "Completed"
        flow_run = training_run(api, copied, 200)
        api.cancel(flow_run)
        began = time.monotonic()
        wait_for(lambda: len(processes_in(copied.root)) <= 1, 20)      # the worker itself
        assert time.monotonic() - began < 20
        wait_for(lambda: api.state(flow_run)["name"] == "Cancelled", 40)
        assert len(copied.checkpoints("pretrain")) == 1
    finally:
        stop(worker)


def stop(worker: subprocess.Popen) -> None:
    """Prefect's worker can hang when it is told to stop in the moment in which it reports a cancellation."""
    os.killpg(worker.pid, signal.SIGTERM)
    try:
        worker.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
