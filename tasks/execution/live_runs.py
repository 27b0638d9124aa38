"""Runs that are going on in this workspace, so that the next one can close the books of one that was killed.

A killed process cannot tell Prefect and MLflow that it is gone: both would show it as running for ever. Each run holds
a file in `.genai/live/` locked; one that is not locked any more is of a run that died, or that could not say how it
ended.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from genai_core.errors import InputError
from tasks.store import locks
from tasks.store.artifacts import Store
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking

logger = logging.getLogger("tasks")


@contextmanager
def noted(workspace: Workspace, mlflow_run_id: str, flow_run_id: str, command: str) -> Iterator[None]:
    """Note a run for as long as the context lasts, and tell MLflow how it ended, whatever happens."""
    path = _folder(workspace) / f"{mlflow_run_id}.json"
    note = {"flow_run_id": flow_run_id, "command": command}
    named = locks.holder.set(f"{command} (flow run {flow_run_id[:8]})")
    try:
        with _no_garbage_is_collected(workspace), locks.held(path, json.dumps(note)) as file:
            try:
                yield
            except BaseException as error:
                _end(note, "FAILED" if isinstance(error, Exception) else "KILLED", file)
                raise
            _end(note, "FINISHED", file)
    finally:
        locks.holder.reset(named)


def close_books(workspace: Workspace) -> None:
    """Mark the runs of processes that died as killed in MLflow and as crashed in Prefect, and take their scratch away.

    What MLflow or Prefect does not take now is left for the next run.
    """
    Store.of(workspace).remove_leftovers()
    for path in sorted(_folder(workspace).glob("*.json")):
        with locks.taken_over(path) as text:
            if text is None:
                continue
            try:
                entry = json.loads(text)
                _mark_in_mlflow(path.stem, entry.get("status", "KILLED"))
                _mark_in_prefect(entry["flow_run_id"])
            except Exception as error:      # whatever it is, it is not the new run's
                logger.warning("the books of run %s stay open: %s", path.stem, tracking.first_line(error))
            else:
                path.unlink(missing_ok=True)


@contextmanager
def none_going_on(workspace: Workspace) -> Iterator[None]:
    """No run goes on for as long as the context lasts; one that begins waits. Raises InputError while one does."""
    with locks.lock_if_free(_gate(workspace)) as free:
        if not free:
            raise InputError("a run is going on in this workspace; wait for its end, then collect garbage")
        yield


@contextmanager
def _no_garbage_is_collected(workspace: Workspace) -> Iterator[None]:
    with locks.lock(_gate(workspace), "the end of `genai gc`", shared=True):
        yield


def _gate(workspace: Workspace) -> Path:
    """The lock that runs share and that who removes artifacts has alone."""
    return workspace.hidden / "locks" / "runs.lock"


def _folder(workspace: Workspace) -> Path:
    return workspace.hidden / "live"


def _end(note: dict[str, str], status: str, file: locks.Held) -> None:
    """Raises nothing: an error that ends the run is told in place of one of MLflow, and a run that is done is done."""
    try:
        _mark_in_mlflow(file.path.stem, status)
    except Exception as error:
        logger.warning("MLflow does not take the end of the run (%s): the next run here tells it",
                       tracking.first_line(error))
        file.leave(json.dumps({**note, "status": status}))


def _mark_in_mlflow(parent_run_id: str, status: str) -> None:
    """End the run and what is left running below it."""
    from mlflow.entities import RunStatus
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    client = tracking.client()
    try:
        parent = client.get_run(parent_run_id)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        logger.warning("run %s is not in MLflow any more", parent_run_id)
        return
    nested = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent_run_id}' and "
                                                             "attributes.status = 'RUNNING'")
    for run in [*nested, parent]:
        if not RunStatus.is_terminated(RunStatus.from_string(run.info.status)):
            client.set_terminated(run.info.run_id, status)


def _mark_in_prefect(flow_run_id: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    if not flow_run_id:
        return
    with get_client(sync_client=True) as client:
        try:
            state: Any = client.read_flow_run(UUID(flow_run_id)).state
            if state and not state.is_final():
                client.set_flow_run_state(UUID(flow_run_id), Crashed(message="its process was killed"), force=True)
        except ObjectNotFound:
            logger.warning("flow run %s is not on this Prefect server", flow_run_id)
