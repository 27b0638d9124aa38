"""Executing a stage: find its artifact, fetch it, or make it, under the lock of its key.

`python -m tasks.execution.execute < request.json` does it in a process of its own, and prints the artifact as JSON.
"""

import logging
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from tasks.pipeline import StageRequest
from tasks.placement.apart import compute_apart, runs_apart
from tasks.placement.cluster import mapper_for
from tasks.placement.compute import compute, context_of, cpu_seconds_so_far
from tasks.placement.elsewhere import made_elsewhere
from tasks.placement.inputs import fetch
from tasks.registry.model_card import write_model_card
from tasks.stage import Stage
from tasks.store import checkpoints, records
from tasks.store.artifacts import Artifact, Store
from tasks.store.cost import measured_cost
from tasks.store.disk import clear_error_when_full, require_space
from tasks.store.workspace import Workspace
from tasks.tracking.stage_run import stage_run
from tasks.views import prefect_artifacts

logger = logging.getLogger("tasks")


def execute(request: StageRequest) -> tuple[Artifact, str]:
    """The artifact of a request, and how it came: `Cached`, `Fetched` or `Completed`."""
    workspace, stage = Workspace(request.workspace), request.stage
    store = Store.of(workspace)
    directory = store.directory(stage.name, stage.kind, request.parts.key)
    with store.lock(stage.name, request.parts.key):
        if not request.force:
            if found := store.find(directory):
                return found, "Cached"
            store.discard(directory)      # damaged or half made
            if fetched := fetch(stage, workspace, directory):
                logger.info("%s %s fetched, not made", stage.name, request.parts.key)
                return fetched, "Fetched"
        if pool := request.runtime.placement.get(stage.name):
            return made_elsewhere(request, pool, directory), "Fetched"
        return _make(request, workspace, store, directory), "Completed"


def _make(request: StageRequest, workspace: Workspace, store: Store, directory: Path) -> Artifact:
    stage, parts, identity = request.stage, request.parts, request.identity
    started, clock, cpu_clock = datetime.now(UTC), time.monotonic(), cpu_seconds_so_far()
    require_space(workspace, stage.name)
    with (stage_run(request) as tracked, clear_error_when_full(workspace, stage.name),
          store.new(directory, parts) as scratch, mapper_for(request.runtime, stage.core, scratch) as mapper):
        checkpoint_dir = workspace.checkpoints / stage.name / parts.key
        runtime = request.runtime
        context = replace(
            context_of(request, checkpoint_dir, tracked.reporter), map=mapper,
            earlier=() if request.force else store.made_by(stage.name, stage.kind, parts.code))
        with _checkpoints_travel(stage, workspace, parts.key):
            result = (compute_apart if runs_apart(stage, runtime) else compute)(request, scratch, context)
        if stage.kind == "model":
            card = write_model_card(scratch, stage, parts, request.inputs, dict(result.metrics))
            prefect_artifacts.show_model_card(card, stage.name)
        artifact = store.commit(scratch, directory, parts, dict(result.metrics))
        seconds = time.monotonic() - clock
        cpu_seconds = result.measurements.get("cpu_seconds", cpu_seconds_so_far() - cpu_clock)
        cost = measured_cost(runtime, seconds, cpu_seconds, result.metrics.get("flops", 0.0))
        records.write_record(workspace, artifact, {
            "digest": artifact.digest, "started": started.isoformat(timespec="seconds"), "seconds": seconds,
            "cost": asdict(cost), "commit": identity.commit, "command": identity.command,
            "flow_run_id": identity.flow_run_id, "mlflow_run_id": tracked.run_id, "dvc_md5": identity.dataset_md5,
            "flops": result.metrics.get("flops"), "measurements": dict(result.measurements),
            "environment": records.environment(), **records.host()})
        tracked.finish(result, seconds=seconds, energy_watt_hours=cost.energy_watt_hours, money=cost.money)
    _forget(checkpoint_dir)
    return artifact


def _forget(checkpoint_dir: Path) -> None:
    """Nothing will continue from these checkpoints; batches of steps that were skipped stay, to be looked at."""
    for path in checkpoint_dir.glob("*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        checkpoint_dir.rmdir()


@contextmanager
def _checkpoints_travel(stage: Stage, workspace: Workspace, key: str) -> Iterator[None]:
    """Begin with what another host's training of this key came to, and leave there what this one comes to."""
    if stage.kind != "model":
        yield
        return
    if name := checkpoints.fetch_newer(workspace, stage.name, key):
        logger.info("%s: %s of another host was found on the remote", stage.name, name)
    courier = checkpoints.Courier(workspace, stage.name, key)
    try:
        yield
    except BaseException:
        courier.close(interrupted=True)
        raise
    courier.close(interrupted=False)


if __name__ == "__main__":
    made, _ = execute(StageRequest.model_validate_json(sys.stdin.read()))
    print(made.model_dump_json())
