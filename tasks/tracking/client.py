"""MLflow: its client, one experiment, and a parent run per flow run."""

import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.store.artifacts import Store
from tasks.store.workspace import Workspace

EXPERIMENT = "train-llm"


@lru_cache(maxsize=1)
def client() -> Any:
    """The MLflow client of this process, configured for the workspace."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # 1 + 2 + 4 + … seconds: four minutes in all, and back within a minute of a server's return
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "8")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = Workspace.current().tracking_uri
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(os.environ.get("MLFLOW_REGISTRY_URI", uri))
    return mlflow.MlflowClient()


def is_there() -> bool:
    """Whether there is an MLflow that could know anything: a server, or a database that was made before."""
    uri = Workspace.current().tracking_uri
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).is_file()


def outage() -> type[Exception]:
    """What the client raises when MLflow does not answer, after its own four minutes of trying again."""
    from mlflow.exceptions import MlflowException

    return MlflowException


@lru_cache(maxsize=1)
def experiment_id() -> str:
    """The experiment's id. Its artifacts go to the workspace unless a tracking server decides for itself."""
    workspace = Workspace.current()
    with Store.of(workspace).lock("mlflow", "experiment"):      # two first runs would both make the database
        found = client().get_experiment_by_name(EXPERIMENT)
        if found:
            return found.experiment_id
        own = workspace.tracking_uri.startswith("sqlite:")
        return client().create_experiment(EXPERIMENT, (workspace.root / "mlartifacts").as_uri() if own else None)


def run_link(run_id: str) -> str:
    """Address of a run's page; empty when MLflow is no server."""
    uri = Workspace.current().tracking_uri
    return f"{uri.rstrip('/')}/#/experiments/{experiment_id()}/runs/{run_id}" if uri.startswith("http") else ""


def start_parent_run(name: str, parameters: dict[str, Any], tags: dict[str, str]) -> str:
    run = client().create_run(experiment_id(), run_name=name, tags=tags)
    log_parameters(run.info.run_id, parameters)
    return run.info.run_id


def end_run(run_id: str, status: str) -> None:
    client().set_terminated(run_id, status)


def log_text(run_id: str, text: str, file: str) -> None:
    client().log_text(run_id, text, file)


def log_parameters(run_id: str, parameters: dict[str, Any]) -> None:
    """Log parameters of any type as text, cut at the length that MLflow takes."""
    from mlflow.entities import Param

    entries = [Param(allowed_name(name), str(value)[:6000]) for name, value in parameters.items()]
    for first in range(0, len(entries), 100):
        client().log_batch(run_id, params=entries[first:first + 100])


def allowed_name(name: str) -> str:
    """MLflow allows letters, digits, and a few marks in names."""
    return "".join(character if character.isalnum() or character in "_-. /:" else "_" for character in name)
