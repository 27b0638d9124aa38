"""MLflow: its client, one experiment, and a parent run per flow run."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from tasks.store.artifacts import Store
from tasks.store.workspace import Workspace

logger = logging.getLogger("tasks")

EXPERIMENT = "train-llm"

Answer = TypeVar("Answer")


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


def again(what: str, call: Callable[[], Answer]) -> Answer:
    """What `call` gives, tried again after 1, 2, 4 and 8 seconds while the service or the way to it fails.

    For what MLflow's client does not repeat by itself: files that break off while they are read. The last error goes
    on.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, TEMPORARILY_UNAVAILABLE, ErrorCode

    passing = [ErrorCode.Name(code) for code in (INTERNAL_ERROR, TEMPORARILY_UNAVAILABLE)]
    for seconds in (1, 2, 4, 8):
        try:
            return call()
        except (MlflowException, OSError) as error:
            if isinstance(error, MlflowException) and error.error_code not in passing:
                raise
            logger.warning("%s: %s; trying again in %d s", what, first_line(error), seconds)
            time.sleep(seconds)
    return call()


@lru_cache(maxsize=1)
def experiment_id() -> str:
    """The experiment's id. Its artifacts go to the workspace unless a tracking server decides for itself."""
    workspace = Workspace.current()
    with Store.of(workspace).lock("mlflow", "experiment"):      # two first runs would both make the database
        found = client().get_experiment_by_name(EXPERIMENT)
        if found:
            return found.experiment_id
        own = workspace.tracking_uri.startswith("sqlite:")
        try:
            return client().create_experiment(EXPERIMENT, (workspace.root / "mlartifacts").as_uri() if own else None)
        except outage():      # another host has made it in this moment
            if found := client().get_experiment_by_name(EXPERIMENT):
                return found.experiment_id
            raise


def run_link(run_id: str) -> str:
    """Address of a run's page; empty when MLflow is no server."""
    uri = Workspace.current().tracking_uri
    return f"{uri.rstrip('/')}/#/experiments/{experiment_id()}/runs/{run_id}" if uri.startswith("http") else ""


def start_parent_run(name: str, parameters: dict[str, Any], tags: dict[str, str]) -> str:
    run_id: str = client().create_run(experiment_id(), run_name=name, tags=tags).info.run_id
    with ended_on_error(run_id):
        log_parameters(run_id, parameters)
    return run_id


def end_run(run_id: str, status: str) -> None:
    client().set_terminated(run_id, status)


@contextmanager
def ended_on_error(run_id: str) -> Iterator[None]:
    """End the run as failed, or as killed, when an error passes; whatever MLflow answers, that error goes on."""
    try:
        yield
    except BaseException as error:
        with told("the end of the run"):
            end_run(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise


@contextmanager
def told(what: str) -> Iterator[None]:
    """For what is done on the way out of an error: a second one is told, and does not take the place of the first."""
    try:
        yield
    except Exception as error:
        logger.warning("%s: %s", what, first_line(error))


def first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


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
