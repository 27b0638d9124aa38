"""The nested MLflow run of a stage while it executes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from genai_core.result import Result
from tasks.execution.pipeline import PipelineRun
from tasks.store.artifacts import KeyParts
from tasks.tracking import client as tracking
from tasks.tracking.curves import StageReporter
from tasks.views.tables import flatten


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
def stage_run(run: PipelineRun, stage: str, parts: KeyParts) -> Iterator[TrackedStage]:
    """A nested MLflow run around a stage's execution; an error marks it failed and goes on."""
    tags = {"mlflow.parentRunId": run.parent_run_id, "stage": stage, "cache.key": parts.key,
            "prefect.flow_run_id": run.flow_run_id, "git.commit": run.commit}
    run_id = tracking.client().create_run(tracking.experiment_id(), run_name=stage, tags=tags).info.run_id
    tracking.log_parameters(run_id, flatten(parts.config))
    if run.dataset_md5:
        _log_dataset(run, run_id)
    reporter = StageReporter(run_id, stage)
    try:
        yield TrackedStage(run_id, reporter)
    except BaseException as error:
        reporter.close()
        tracking.end_run(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    reporter.close()
    tracking.end_run(run_id, "FINISHED")


def _log_dataset(run: PipelineRun, run_id: str) -> None:
    """The datasets as an input of the run, under the md5 by which DVC knows them."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": "data.dvc", "md5": run.dataset_md5, "git": run.commit})
    dataset = Dataset(name="data", digest=run.dataset_md5[:8], source_type="dvc", source=source)
    tags = [InputTag("mlflow.data.context", "training"), InputTag("dvc.md5", run.dataset_md5)]
    tracking.client().log_inputs(run_id, [DatasetInput(dataset, tags)])
