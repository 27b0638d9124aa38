"""A stage on another machine: a worker of a Prefect work pool makes the artifact, and it comes back by its key.

The two share no disk: the worker brings what the stage reads from the registry and the remote of the data, and leaves
there what it made. `runtime.placement` names the pool; `execute-stage/POOL` is its deployment (prefect.yaml). What the
worker logs and how far it is are passed on to the run that asked. When the worker is lost, another one is asked for.
"""

import logging
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed, Failed

from genai_core.errors import InputError
from tasks.lease import SignsOfLife, lease, place
from tasks.pipeline import StageRequest
from tasks.placement.apart import ERRORS, ending
from tasks.placement.inputs import fetch
from tasks.placement.torchrun import RESTARTS
from tasks.store import published
from tasks.store.artifacts import Artifact
from tasks.store.workspace import Workspace
from tasks.tracking.client import told
from tasks.tracking.curves import ProgressArtifact
from tasks.tracking.events import announce

logger = logging.getLogger("tasks")

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 30.0
"""After which somebody is told that no worker has taken the stage."""
STARTING_SECONDS = 300.0
"""How long a worker that has taken a stage may take to its first sign of life: it imports all that it needs."""
LAST_LOGS_SECONDS = 4.0
"""After the end of a run its last lines may be under way: Prefect sends them every two seconds."""
LOGS_AT_ONCE, LOGS_AGAIN = 200, 50
"""Lines to read at a time, and of those that were read before: some come late, with an earlier time."""
OWN_LOGS = ("genai_core", "tasks")


def made_elsewhere(request: StageRequest, pool: str, directory: Path) -> Artifact:
    """The artifact of a request, made by a worker of the pool and fetched. Raises what the worker raised, and
    InputError where there is no such deployment or what it made is nowhere to be fetched from."""
    stage, workspace = request.stage, Workspace(request.workspace)
    published.publish(workspace, [artifact for artifact in request.inputs.values()
                                  if not artifact.path.startswith("models/")])
    with (lease(workspace, asker_of(stage.name), request.parts.key, on_loss=_say_nothing),
          get_client(sync_client=True) as client):
        for left in reversed(range(1 + RESTARTS)):
            state = _asked_once(request, pool, client)
            if not state.is_crashed() or not left:
                break
            logger.warning("%s: the worker of %s is lost (%s): asking again; whoever takes the stage goes on from the "
                           "last checkpoint that came to the remote", stage.name, pool, state.message)
    if not state.is_completed():
        message = f"{stage.name} on work pool {pool}: {state.name}: {state.message}"
        raise next((error for name, error in ERRORS.items() if name in message), RuntimeError)(message)
    if found := fetch(stage, workspace, directory):
        return found
    raise InputError(f"{stage.name} was made on work pool {pool}, but is neither in the registry nor on the remote of "
                     "the data; give both machines the same MLFLOW_TRACKING_URI and GENAI_DVC_REMOTE")


def worker_of(stage: str) -> str:
    """What the lease of a worker that makes a stage for another machine is named by."""
    return f"worker_{stage}"


def asker_of(stage: str) -> str:
    """What the lease of whoever waits for such a stage is named by."""
    return f"asker_{stage}"


def _say_nothing() -> None:
    """The lease itself says that it was taken away; the worker sees it too, and ends."""


def _asked_once(request: StageRequest, pool: str, client: SyncPrefectClient) -> State:
    """How a run of the stage by a worker ended. Whoever is interrupted here cancels it."""
    stage = request.stage.name
    given = {"request": request.model_dump(mode="json", exclude={"workspace"}),
             "asked_from": place(Workspace(request.workspace))}
    before = SignsOfLife(worker_of(stage), request.parts.key)
    before.look(patiently=True)
    before.take_away()      # of a worker that died, or was given up: it would be taken for the next one's
    try:
        started: Any = run_deployment(f"execute-stage/{pool}", parameters=given, timeout=0,
                                      flow_run_name=f"{stage} {request.parts.key}")
    except ObjectNotFound:
        raise InputError(f"runtime.placement: there is no deployment execute-stage/{pool}; declare it in prefect.yaml, "
                         "`prefect deploy` it, and start a worker of its pool") from None
    logger.info("%s: flow run %s of work pool %s", stage, started.name, pool)
    try:
        with closing(_Worker(started.id, request, client)) as worker:
            return worker.end(pool)
    except BaseException:
        with told(f"{stage} on work pool {pool} could not be cancelled"):
            client.set_flow_run_state(started.id, Cancelling(), force=True)
        raise


class _Worker:
    """The run of a stage by somebody else, as this machine sees it."""

    def __init__(self, flow_run_id: UUID, request: StageRequest, client: SyncPrefectClient):
        self._id, self._stage, self._client = flow_run_id, request.stage.name, client
        self._signs = SignsOfLife(worker_of(self._stage), request.parts.key)
        self._silent_seconds = request.runtime.silent_seconds
        self._progress = ProgressArtifact(self._stage)
        self._logs_read: set[UUID] = set()

    def close(self) -> None:
        self._progress.close()

    def end(self, pool: str) -> State:
        """The state in which the run ends, or in which it was given up: Crashed."""
        began, patient = time.monotonic(), True
        while True:
            state: State | None = None
            with told(f"{self._stage} on work pool {pool}: no word of it"):      # Prefect may be away for a while
                try:
                    state = self._client.read_flow_run(self._id).state
                except ObjectNotFound:
                    return Failed(message="Prefect knows its flow run no more")
            if state and state.is_scheduled():
                if patient and time.monotonic() - began > PATIENCE_SECONDS:
                    patient = False
                    logger.warning("%s: no worker of %s has taken it yet: prefect worker start --pool %s", self._stage,
                                   pool, pool)
            elif state:
                with told(f"{self._stage} on work pool {pool}: what it says is lost"):
                    self._pass_on_logs()
                    self._pass_on_progress()
                    if state.is_final():
                        time.sleep(LAST_LOGS_SECONDS)
                        self._pass_on_logs()
                if state.is_final():
                    return state
                with told(f"{self._stage} on work pool {pool}: whether its worker lives is not known"):
                    if lost := self._lost():
                        return lost
            if ending.wait(POLL_SECONDS):
                raise KeyboardInterrupt

    def _lost(self) -> State | None:
        """The state of a worker that is given up: it finds its lease gone, should it live, and ends."""
        self._signs.look()
        silent = self._signs.unchanged * POLL_SECONDS
        if silent <= (self._silent_seconds if self._signs.seen else STARTING_SECONDS):
            return None
        lost: State = Crashed(message=f"no sign of life for {silent:.0f} s")
        self._client.set_flow_run_state(self._id, lost, force=True)
        self._signs.take_away()
        return lost

    def _pass_on_logs(self) -> None:
        """What has come since the last time, in the order of its times."""
        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[self._id]))
        while logs := self._client.read_logs(wanted, limit=LOGS_AT_ONCE,
                                             offset=max(0, len(self._logs_read) - LOGS_AGAIN)):
            new = [log for log in logs if log.id not in self._logs_read]
            self._logs_read.update(log.id for log in new)
            for log in new:
                if log.name.startswith(OWN_LOGS):
                    logger.log(log.level, "%s", log.message)
                    if (note := log.message.removeprefix(f"{self._stage}: ")) != log.message:
                        announce("note", self._stage, text=note)
            if len(logs) < LOGS_AT_ONCE:
                return

    def _pass_on_progress(self) -> None:
        wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[self._id]),
                                type=ArtifactFilterType(any_=["progress"]))
        for found in self._client.read_artifacts(artifact_filter=wanted):
            self._progress.percent = float(str(found.data))
            announce("progress", self._stage, done=self._progress.percent, total=100, unit="percent", figures={})
