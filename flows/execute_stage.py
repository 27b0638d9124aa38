"""One stage of a run that another machine asked for: `runtime.placement` of the run names this machine's work pool."""

from typing import Any

from prefect import flow

from tasks.execution.execute import execute
from tasks.execution.inputs import bring_inputs
from tasks.pipeline import StageRequest
from tasks.registry import versions
from tasks.store import published
from tasks.store.workspace import Workspace


@flow(name="execute-stage")
def execute_stage(request: dict[str, Any]) -> str:
    """Make the artifact of a request in this machine's workspace, and leave it where others fetch it; its digest.

    Args:
        request: A StageRequest as JSON, without the workspace.
    """
    workspace = Workspace.current()
    asked = StageRequest.model_validate({**request, "workspace": str(workspace.root)})
    here = asked.model_copy(update={"runtime": asked.runtime.model_copy(update={"placement": {}})})
    bring_inputs(here)
    artifact, _ = execute(here)
    if here.stage.kind == "model":
        versions.register(workspace, here.stage, artifact, here.identity.parent_run_id, here.identity.dataset_md5)
    else:
        published.publish(workspace, [artifact])
    return artifact.digest
