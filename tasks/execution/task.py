"""A stage as a task of Prefect, whose state says how the artifact came: Cached, Fetched or Completed.

The cache is the store of artifacts alone; Prefect keeps no results of its own.
"""

from contextlib import nullcontext
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from tasks.execution.execute import execute
from tasks.lease import lease
from tasks.pipeline import PipelineRun, StageRequest
from tasks.registry import versions
from tasks.registry.opponent import models_in_service
from tasks.stage import Stage
from tasks.store import checkpoints, published, records
from tasks.store.artifacts import Artifact
from tasks.store.disk import clear_error_when_full
from tasks.tracking.events import announce


class LastStageDone(Exception):
    """The stage that `until` names is finished: nothing after it is to run."""


@task(cache_policy=NO_CACHE, persist_result=False)
def execute_stage(request: StageRequest) -> Any:
    artifact, state = execute(request)
    # a named state, so that what was found or fetched does not look like what was computed
    return artifact if state == "Completed" else Completed(name=state, data=artifact)


def make(run: PipelineRun, stage: Stage) -> Artifact:
    """The artifact of a stage of a run, whose inputs the run has made before; a model is registered.

    Raises LastStageDone after the stage that the run ends with.
    """
    announce("started", stage.name)
    request = run.request(stage, models_in_service(run, stage))
    directory = run.store.directory(stage.name, stage.kind, request.parts.key)
    named = execute_stage.with_options(name=stage.name, description=stage.describe)
    here = run.store.find(directory) and not request.force
    # until others can fetch it, which a registered model can be
    with (clear_error_when_full(run.workspace, stage.name),
          nullcontext() if here else lease(run.workspace, stage.name, request.parts.key)):
        state = named(request, return_state=True)
        if not state.is_completed():
            announce("finished", stage.name, state=state.name)
        artifact: Artifact = state.result()
        run.states[stage.name], run.artifacts[stage.name] = state.name or "", artifact
        records.mark_used(run.workspace, artifact)
        if stage.kind == "model":
            run.versions[stage.name] = versions.ensure_registered(run, stage, artifact)
            checkpoints.discard(run.workspace, stage.name, artifact.key)      # from here on the registry has the model
        elif stage.kind == "report":
            published.publish(run.workspace, [artifact])
            versions.note_report(run.workspace, artifact)
    announce("finished", stage.name, state=state.name)
    if stage.name == run.until:
        raise LastStageDone(stage.name)
    return artifact
