"""MLflow: one experiment, a parent run per flow run, a nested run per stage that was executed.

One writer sends the points of all curves in batches: a call for every step would cost more than small steps do, and
asynchronous logging drops points when the store is slow.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from genai_core.result import Result
from tasks.artifacts import KeyParts
from tasks.events import announce
from tasks.run import PipelineRun
from tasks.tables import flatten
from tasks.workspace import Workspace

logger = logging.getLogger("genai_core")

EXPERIMENT = "train-llm"
FLUSH_SECONDS = 5.0
MAX_POINTS = 1000
"""Points of one curve in MLflow; longer curves are thinned there and whole in `curves.json`."""


@lru_cache(maxsize=1)
def client() -> Any:
    """The MLflow client of this process, configured for the workspace."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = Workspace.current().tracking_uri
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(os.environ.get("MLFLOW_REGISTRY_URI", uri))
    return mlflow.MlflowClient()


@lru_cache(maxsize=1)
def experiment_id() -> str:
    """The experiment's id. Its artifacts go to the workspace unless a tracking server decides for itself."""
    found = client().get_experiment_by_name(EXPERIMENT)
    if found:
        return found.experiment_id
    workspace = Workspace.current()
    own = workspace.tracking_uri.startswith("sqlite:")
    return client().create_experiment(EXPERIMENT, (workspace.root / "mlartifacts").as_uri() if own else None)


def start_parent_run(name: str, parameters: dict[str, Any], tags: dict[str, str]) -> str:
    run = client().create_run(experiment_id(), run_name=name, tags=tags)
    _log_parameters(run.info.run_id, parameters)
    return run.info.run_id


def end_run(run_id: str, status: str) -> None:
    client().set_terminated(run_id, status)


class StageReporter:
    """Sends what a stage reports to MLflow, the log and the terminal."""

    def __init__(self, run_id: str, stage: str):
        self.run_id, self.stage = run_id, stage
        self._points: list[Any] = []
        self._counts: dict[str, int] = {}
        self._flushed = self._shown = time.monotonic()

    def progress(self, done: float, total: float, unit: str, **figures: float) -> None:
        if done >= total or time.monotonic() - self._shown > 0.2:
            self._shown = time.monotonic()
            announce("progress", self.stage, done=done, total=total, unit=unit, figures=figures)

    def metrics(self, step: int, **values: float) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for name, value in values.items():
            seen = self._counts[name] = self._counts.get(name, 0) + 1
            if seen <= MAX_POINTS or seen % (seen // MAX_POINTS + 1) == 0:
                self._points.append(Metric(_name(name), float(value), now, step))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def note(self, text: str) -> None:
        logger.info("%s: %s", self.stage, text)
        announce("note", self.stage, text=text)

    def flush(self) -> None:
        points, self._points = self._points, []
        for first in range(0, len(points), 1000):
            client().log_batch(self.run_id, metrics=points[first:first + 1000])
        self._flushed = time.monotonic()


class TrackedStage:
    """The nested run of a stage while it executes."""

    def __init__(self, run_id: str, stage: str):
        self.run_id, self.reporter = run_id, StageReporter(run_id, stage)

    def finish(self, result: Result, seconds: float) -> None:
        self.reporter.flush()
        numbers = {name: value for name, value in {**result.metrics, **result.measurements, "seconds": seconds}.items()
                   if isinstance(value, int | float) and not isinstance(value, bool)}
        self.reporter.metrics(0, **{f"result/{name}": value for name, value in numbers.items()})
        self.reporter.flush()
        for name, value in result.measurements.items():
            if isinstance(value, str | bool):
                client().set_tag(self.run_id, f"measured.{name}", str(value))


@contextmanager
def stage_run(run: PipelineRun, stage: str, parts: KeyParts) -> Iterator[TrackedStage]:
    """A nested MLflow run around a stage's execution; an error marks it failed and goes on."""
    tags = {"mlflow.parentRunId": run.parent_run_id, "stage": stage, "cache.key": parts.key,
            "prefect.flow_run_id": run.flow_run_id, "git.commit": run.commit}
    run_id = client().create_run(experiment_id(), run_name=stage, tags=tags).info.run_id
    _log_parameters(run_id, flatten(parts.config))
    if run.dataset_md5:
        _log_dataset(run, run_id)
    tracked = TrackedStage(run_id, stage)
    try:
        yield tracked
    except BaseException:
        tracked.reporter.flush()
        end_run(run_id, "FAILED")
        raise
    end_run(run_id, "FINISHED")


def _log_dataset(run: PipelineRun, run_id: str) -> None:
    """The datasets as an input of the run, under the md5 by which DVC knows them."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = f'{{"uri": "data.dvc", "md5": "{run.dataset_md5}", "git": "{run.commit}"}}'
    dataset = Dataset(name="data", digest=run.dataset_md5[:8], source_type="dvc", source=source)
    tags = [InputTag("mlflow.data.context", "training"), InputTag("dvc.md5", run.dataset_md5)]
    client().log_inputs(run_id, [DatasetInput(dataset, tags)])


def _log_parameters(run_id: str, parameters: dict[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(_name(name), str(value)[:6000]) for name, value in parameters.items()]
    for first in range(0, len(entries), 100):
        client().log_batch(run_id, params=entries[first:first + 100])


def _name(name: str) -> str:
    """MLflow allows letters, digits, and a few marks in names."""
    return "".join(character if character.isalnum() or character in "_-. /:" else "_" for character in name)
