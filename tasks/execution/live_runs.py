"""Runs that are going on in this workspace, so that the next one can close the books of one that was killed.

A killed process cannot tell Prefect and MLflow that it is gone: both would show it as running for ever.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from tasks.execution.processes import is_alive, process_identity
from tasks.pipeline import PipelineRun
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking

logger = logging.getLogger("tasks")


@contextmanager
def noted(run: PipelineRun) -> Iterator[None]:
    """Note the run, and this process, for as long as the context lasts."""
    path = _folder(run.workspace) / f"{run.parent_run_id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps({"flow_run_id": run.flow_run_id, **process_identity(os.getpid())}))
    scratch.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def close_books(workspace: Workspace) -> None:
    """Mark the runs of processes that died as killed in MLflow and as crashed in Prefect."""
    for path, entry in _entries(workspace).items():
        if is_alive(entry):
            continue
        logger.warning("the run %s died without a word: marking it", path.stem)
        _mark_in_mlflow(path.stem)
        _mark_in_prefect(entry["flow_run_id"])
        path.unlink(missing_ok=True)


def live_parent_runs(workspace: Workspace) -> list[str]:
    return [path.stem for path, entry in _entries(workspace).items() if is_alive(entry)]


def _entries(workspace: Workspace) -> dict[Path, dict[str, Any]]:
    """What each run noted of itself; one that ends while this is read is gone, and that is well."""
    found = {}
    for path in _folder(workspace).glob("*.json"):
        with suppress(FileNotFoundError):
            found[path] = json.loads(path.read_text())
    return found


def _folder(workspace: Workspace) -> Path:
    return workspace.hidden / "live"


def _mark_in_mlflow(parent_run_id: str) -> None:
    from mlflow.exceptions import MlflowException

    client = tracking.client()
    nested = client.search_runs([tracking.experiment_id()], f"tags.`mlflow.parentRunId` = '{parent_run_id}' and "
                                                            "attributes.status = 'RUNNING'")
    for run_id in [*(run.info.run_id for run in nested), parent_run_id]:
        try:
            client.set_terminated(run_id, "KILLED")
        except MlflowException as error:
            logger.warning("run %s is not in MLflow any more (%s)", run_id, error)


def _mark_in_prefect(flow_run_id: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    if not flow_run_id:
        return
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(flow_run_id)).state
            if state and not state.is_final():
                client.set_flow_run_state(UUID(flow_run_id), Crashed(message="its process was killed"), force=True)
        except ObjectNotFound:
            logger.warning("flow run %s is not on this Prefect server", flow_run_id)
