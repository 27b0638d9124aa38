"""A server that stops for a minute in mid-run: training goes on, and nothing is lost or doubled afterwards."""

import json
import time

import httpx
import mlflow as mlflow_library
import pytest

from tests.end_to_end.conftest import Home
from tests.end_to_end.helpers import Server, address_of, api_of, prefect_server, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

OUTAGE_SECONDS = 60


@pytest.fixture
def own_prefect(tmp_path):
    server = prefect_server(tmp_path)
    yield server
    server.kill()


@pytest.mark.parametrize("which", ["mlflow", "prefect"])
def test_a_server_away_for_a_minute_costs_nothing(which, mlflow, own_prefect, tmp_path):
    home = Home(tmp_path / "home", {"PREFECT_API_URL": api_of(own_prefect), "MLFLOW_TRACKING_URI": address_of(mlflow)})
    home.root.mkdir()
    victim: Server = {"mlflow": mlflow, "prefect": own_prefect}[which]
    process = home.start("run", "--preset", "smoke", "--until", "instruct", "--set", "pretrain.tokens=2000000", "--set",
                         "runtime.checkpoint_seconds=1")
    wait_for(lambda: home.checkpoints("pretrain"))
    victim.kill()
    before = max(home.checkpoints("pretrain"))
    wait_for(lambda: max(home.checkpoints("pretrain"), default=before) > before, 30)      # training goes on
    time.sleep(OUTAGE_SECONDS)
    victim.start()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output

    client = mlflow_library.MlflowClient(address_of(mlflow))
    (experiment,) = client.search_experiments(filter_string="name = 'train-llm'")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags.get("stage", "parent") for run in runs) == [
        "clean", "collect", "instruct", "parent", "pretrain", "tokenize"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for stage in ("pretrain", "instruct"):
        (run,) = [run for run in runs if run.data.tags.get("stage") == stage]
        curves = json.loads((home.artifact(stage) / "curves.json").read_text())
        for name, points in curves.items():
            sent = {(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)}
            assert len(points) < 1000 and sent == {(step, value) for step, value in points}
    assert sorted((version.name, str(version.version)) for version in client.search_model_versions()) == [
        ("genai-instruct", "1"), ("genai-pretrain", "1")]
    for kind, count in (("flow_runs", 1), ("task_runs", 6)):
        entries = httpx.post(f"{api_of(own_prefect)}/{kind}/filter", json={}).json()
        assert [entry["state_name"] for entry in entries] == ["Completed"] * count
