"""The nested MLflow run of a stage while it executes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from genai_core.context import Result
from tasks.pipeline import RunIdentity, StageRequest
from tasks.tables import flatten
from tasks.tracking import client as tracking
from tasks.tracking.curves import StageReporter
from tasks.tracking.stall import LossWatch


class TrackedStage:
    """The nested run of a stage while it executes."""

    def __init__(self, run_id: str, reporter: StageReporter):
        self.run_id, self.reporter = run_id, reporter

    def finish(self, result: Result, **more: float) -> None:
        numbers = {name: value for name, value in {**result.metrics, **result.measurements, **more}.items()
                   if isinstance(value, int | float) and not isinstance(value, bool)}
        self.reporter.metrics(0, **{f"result/{name}": value for name, value in numbers.items()})
        for name, value in result.measurements.items():
            if isinstance(value, str | bool):
                tracking.client().set_tag(self.run_id, f"measured.{name}", str(value))


@contextmanager
def stage_run(request: StageRequest) -> Iterator[TrackedStage]:
    """A nested MLflow run around a stage's execution; an error marks it failed and goes on."""
    stage, parts, identity = request.stage.name, request.parts, request.identity
    tags = {"mlflow.parentRunId": identity.parent_run_id, "stage": stage, "cache.key": parts.key,
            "prefect.flow_run_id": identity.flow_run_id, "git.commit": identity.commit}
    run_id = tracking.client().create_run(tracking.experiment_id(), run_name=stage, tags=tags).info.run_id
    with tracking.ended_on_error(run_id):
        tracking.log_parameters(run_id, flatten(parts.config))
        if identity.dataset_md5:
            _log_dataset(identity, run_id)
        watched = "loss" in request.stage.curves and request.runtime.stall_steps > 0
        reporter = StageReporter(run_id, stage, LossWatch(request.runtime.stall_steps) if watched else None)
        try:
            yield TrackedStage(run_id, reporter)
        except BaseException:
            with tracking.told("the last points of the curves"):
                reporter.close(patience=0)
            raise
        reporter.close()
    tracking.end_run(run_id, "FINISHED")


def _log_dataset(identity: RunIdentity, run_id: str) -> None:
    """The datasets as an input of the run, under the md5 by which DVC knows them."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    source = json.dumps({"uri": "data.dvc", "md5": identity.dataset_md5, "git": identity.commit})
    dataset = Dataset(name="data", digest=identity.dataset_md5[:8], source_type="dvc", source=source)
    tags = [InputTag("mlflow.data.context", "training"), InputTag("dvc.md5", identity.dataset_md5)]
    given = [DatasetInput(dataset, tags)]
    try:
        tracking.client().log_inputs(run_id, given)
    except MlflowException:      # another stage has added the same data since MLflow looked whether it is there
        tracking.client().log_inputs(run_id, given)
