"""MLflow: one experiment, a parent run per flow run, a nested run per stage that was executed."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from genai_core.result import Result
from tasks.artifacts import KeyParts, Store
from tasks.run import PipelineRun
from tasks.tables import flatten
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from tasks.reporting import StageReporter

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
    _log_parameters(run.info.run_id, parameters)
    return run.info.run_id


def end_run(run_id: str, status: str) -> None:
    client().set_terminated(run_id, status)


class TrackedStage:
    """The nested run of a stage while it executes."""

    def __init__(self, run_id: str, reporter: "StageReporter"):
        self.run_id, self.reporter = run_id, reporter

    def finish(self, result: Result, **more: float) -> None:
        numbers = {name: value for name, value in {**result.metrics, **result.measurements, **more}.items()
                   if isinstance(value, int | float) and not isinstance(value, bool)}
        self.reporter.metrics(0, **{f"result/{name}": value for name, value in numbers.items()})
        for name, value in result.measurements.items():
            if isinstance(value, str | bool):
                client().set_tag(self.run_id, f"measured.{name}", str(value))


@contextmanager
def stage_run(run: PipelineRun, stage: str, parts: KeyParts) -> Iterator[TrackedStage]:
    """A nested MLflow run around a stage's execution; an error marks it failed and goes on."""
    from tasks.reporting import StageReporter

    tags = {"mlflow.parentRunId": run.parent_run_id, "stage": stage, "cache.key": parts.key,
            "prefect.flow_run_id": run.flow_run_id, "git.commit": run.commit}
    run_id = client().create_run(experiment_id(), run_name=stage, tags=tags).info.run_id
    _log_parameters(run_id, flatten(parts.config))
    if run.dataset_md5:
        _log_dataset(run, run_id)
    reporter = StageReporter(run_id, stage)
    try:
        yield TrackedStage(run_id, reporter)
    except BaseException as error:
        reporter.close()
        end_run(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    reporter.close()
    end_run(run_id, "FINISHED")


def log_text(run_id: str, text: str, file: str) -> None:
    client().log_text(run_id, text, file)


def _log_dataset(run: PipelineRun, run_id: str) -> None:
    """The datasets as an input of the run, under the md5 by which DVC knows them."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": "data.dvc", "md5": run.dataset_md5, "git": run.commit})
    dataset = Dataset(name="data", digest=run.dataset_md5[:8], source_type="dvc", source=source)
    tags = [InputTag("mlflow.data.context", "training"), InputTag("dvc.md5", run.dataset_md5)]
    client().log_inputs(run_id, [DatasetInput(dataset, tags)])


def _log_parameters(run_id: str, parameters: dict[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(allowed_name(name), str(value)[:6000]) for name, value in parameters.items()]
    for first in range(0, len(entries), 100):
        client().log_batch(run_id, params=entries[first:first + 100])


def allowed_name(name: str) -> str:
    """MLflow allows letters, digits, and a few marks in names."""
    return "".join(character if character.isalnum() or character in "_-. /:" else "_" for character in name)
