"""The books of runs that died, and of runs that could not say how they ended, are closed by the next one."""

import json
from pathlib import Path

import mlflow
import pytest

from genai_core.errors import InputError
from tasks.execution import live_runs
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    return mlflow.MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")


@pytest.fixture
def workspace(client, tmp_path, monkeypatch):
    monkeypatch.setenv("GENAI_HOME", str(tmp_path))
    monkeypatch.setattr(tracking, "client", lambda: client)
    return Workspace(tmp_path)


@pytest.fixture
def run(workspace):
    return tracking.client().create_run("0").info.run_id


def status(run_id):
    return tracking.client().get_run(run_id).info.status


def files(workspace):
    return list((workspace.hidden / "live").glob("*"))


def test_a_killed_run_of_a_pod_with_another_name_is_closed_and_does_not_stop_gc(run, workspace):
    """A volume outlives its pods, each of which has another host name and the same process numbers."""
    nested = tracking.client().create_run("0", tags={"mlflow.parentRunId": run}).info.run_id
    folder = workspace.hidden / "live"
    folder.mkdir(parents=True)
    note = {"flow_run_id": "", "pid": 1, "started": 0.0, "host": "pod-that-is-gone"}
    (folder / f"{run}.json").write_text(json.dumps(note))
    with live_runs.none_going_on(workspace):
        pass
    live_runs.close_books(workspace)
    assert [status(run), status(nested)] == ["KILLED", "KILLED"] and not files(workspace)


def test_a_run_that_goes_on_is_left_alone_and_no_garbage_is_collected_beside_it(run, workspace):
    with live_runs.noted(workspace, run, "", "genai run"):
        live_runs.close_books(workspace)
        assert status(run) == "RUNNING"
        with pytest.raises(InputError, match="a run is going on"), live_runs.none_going_on(workspace):
            pass
    assert status(run) == "FINISHED" and not files(workspace)


def test_an_error_is_told_although_mlflow_is_away_and_the_next_run_says_how_it_ended(run, workspace, monkeypatch):
    real = tracking.client()
    away = mlflow.MlflowClient("http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ZeroDivisionError), live_runs.noted(workspace, run, "", "genai run"):
        monkeypatch.setattr(tracking, "client", lambda: away)
        raise ZeroDivisionError
    live_runs.close_books(workspace)      # it is still away
    assert len(files(workspace)) == 1
    monkeypatch.setattr(tracking, "client", lambda: real)
    live_runs.close_books(workspace)
    assert status(run) == "FAILED" and not files(workspace)


def test_a_note_that_cannot_be_read_stops_no_run(workspace, caplog):
    path = Path(workspace.hidden / "live" / "damaged.json")
    path.parent.mkdir(parents=True)
    path.write_text("{")
    live_runs.close_books(workspace)
    assert "the books of run damaged stay open" in caplog.text
