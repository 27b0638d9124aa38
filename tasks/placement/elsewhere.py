"""A stage on another machine: a worker of a Prefect work pool makes the artifact, and it comes back by its key.

The two share no disk: the worker brings what the stage reads from the registry and the remote of the data, and leaves
there what it made. `runtime.placement` names the pool; `execute-stage/POOL` is its deployment (prefect.yaml).
"""

import logging
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from genai_core.errors import InputError
from tasks.lease import place
from tasks.pipeline import StageRequest
from tasks.placement.apart import ERRORS, ending
from tasks.placement.inputs import fetch
from tasks.store import published
from tasks.store.artifacts import Artifact
from tasks.store.workspace import Workspace

logger = logging.getLogger("tasks")

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 30.0
"""After which somebody is told that no worker has taken the stage."""


def made_elsewhere(request: StageRequest, pool: str, directory: Path) -> Artifact:
    """The artifact of a request, made by a worker of the pool and fetched. Raises what the worker raised, and
    InputError where there is no such deployment or what it made is nowhere to be fetched from."""
    stage, workspace = request.stage, Workspace(request.workspace)
    published.publish(workspace, [artifact for artifact in request.inputs.values()
                                  if not artifact.path.startswith("models/")])
    given = {"request": request.model_dump(mode="json", exclude={"workspace"}), "asked_from": place(workspace)}
    try:
        started: Any = run_deployment(f"execute-stage/{pool}", parameters=given, timeout=0,
                                      flow_run_name=f"{stage.name} {request.parts.key}")
    except ObjectNotFound:
        raise InputError(f"runtime.placement: there is no deployment execute-stage/{pool}; declare it in prefect.yaml, "
                         "`prefect deploy` it, and start a worker of its pool") from None
    logger.info("%s: flow run %s of work pool %s", stage.name, started.name, pool)
    with get_client(sync_client=True) as client:
        try:
            state = _end_of(started.id, stage.name, pool, client)
        except BaseException:
            client.set_flow_run_state(started.id, Cancelling(), force=True)
            raise
    if not state.is_completed():
        message = f"{stage.name} on work pool {pool}: {state.name}: {state.message}"
        raise next((error for name, error in ERRORS.items() if name in message), RuntimeError)(message)
    if found := fetch(stage, workspace, directory):
        return found
    raise InputError(f"{stage.name} was made on work pool {pool}, but is neither in the registry nor on the remote of "
                     "the data; give both machines the same MLFLOW_TRACKING_URI and GENAI_DVC_REMOTE")


def _end_of(flow_run_id: UUID, stage: str, pool: str, client: SyncPrefectClient) -> Any:
    """The last state of a flow run, once it is there."""
    began, told = time.monotonic(), False
    while True:
        state = client.read_flow_run(flow_run_id).state
        if state and state.is_final():
            return state
        if state and state.is_scheduled() and not told and time.monotonic() - began > PATIENCE_SECONDS:
            told = True
            logger.warning("%s: no worker of %s has taken it yet: prefect worker start --pool %s", stage, pool, pool)
        if ending.wait(POLL_SECONDS):
            raise KeyboardInterrupt
